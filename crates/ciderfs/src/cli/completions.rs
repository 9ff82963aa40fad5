//! `ciderfs completions SHELL`: what a shell needs to complete our command lines, out of the tables.

use std::fmt::Write as _;

use super::command::{Command, EVERY, Word};
use super::flag::{Kind, Row, Status};
use super::table;

/// The script of a shell; `None` for one that is not known.
pub fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// Flags that a command takes and that are there.
fn rows(command: Command) -> impl Iterator<Item = &'static Row> {
    table::of(command).filter(|row| !matches!(row.status, Status::Missing(_)))
}

/// What a shell completes a value with.
enum Values {
    /// Names of files.
    Files,
    /// Words.
    Words(&'static [&'static str]),
    /// It cannot know.
    Free,
}

impl Values {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Place | Kind::Dirs | Kind::Bucket => Self::Files,
            Kind::Choice(words) => Self::Words(words),
            _ => Self::Free,
        }
    }

    fn of_word(word: Word) -> Self {
        match word {
            Word::Place | Word::Source => Self::Files,
            Word::Choice(words) => Self::Words(words),
            Word::Text => Self::Free,
        }
    }
}

fn bash() -> String {
    let mut out = String::from(
        "# Completions of ciderfs for bash. Put it where bash looks for them, or: source <(ciderfs completions bash)\n\
         _ciderfs() {\n  local cur=${COMP_WORDS[COMP_CWORD]} prev= command= word flags values\n  COMPREPLY=()\n\
         \x20 [ \"$COMP_CWORD\" -gt 0 ] && prev=${COMP_WORDS[COMP_CWORD-1]}\n\
         \x20 # Bash takes the equals sign for a word of its own.\n\
         \x20 if [ \"$cur\" = = ]; then cur=; elif [ \"$prev\" = = ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n\
         \x20 for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    case $word in\n",
    );
    let names: Vec<_> = EVERY.iter().map(|command| command.name()).collect();
    let _ = writeln!(out, "      {}) command=$word; break;;\n    esac\n  done", names.join("|"));
    let _ = writeln!(
        out,
        "  if [ -z \"$command\" ]; then\n    COMPREPLY=($(compgen -W '{}' -- \"$cur\"))\n    return\n  fi\n  case $command in",
        names.join(" ")
    );
    for command in EVERY {
        let flags: Vec<String> = rows(*command).flat_map(flag_names).collect();
        let _ = writeln!(out, "    {}) flags='{}'\n      case $prev in", command.name(), flags.join(" "));
        for row in rows(*command) {
            let names: Vec<String> = row.names().collect();
            match Values::of(row.kind) {
                Values::Files => {
                    _ = writeln!(out, "        {}) compopt -o default; return;;", names.join("|"))
                }
                Values::Words(words) => {
                    _ = writeln!(
                        out,
                        "        {}) COMPREPLY=($(compgen -W '{}' -- \"$cur\")); return;;",
                        names.join("|"),
                        words.join(" ")
                    );
                }
                Values::Free if row.kind == Kind::Switch => {}
                Values::Free => _ = writeln!(out, "        {}) return;;", names.join("|")),
            }
            if let Some(file) = row.file {
                let _ = writeln!(out, "        --{file}) compopt -o default; return;;");
            }
        }
        let values = match Values::of_word(command.word(0)) {
            Values::Words(words) => words.join(" "),
            _ => String::new(),
        };
        let _ = writeln!(out, "      esac\n      values='{values}';;");
    }
    out.push_str(
        "  esac\n  if [[ $cur == -* ]]; then\n    COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\"))\n\
         \x20 elif [ -n \"$values\" ] && [ \"$prev\" = \"$command\" ]; then\n    COMPREPLY=($(compgen -W \"$values\" -- \"$cur\"))\n\
         \x20 else\n    compopt -o default\n  fi\n}\ncomplete -F _ciderfs ciderfs\n",
    );
    out
}

/// All names of a flag, and of the one for its file.
fn flag_names(row: &'static Row) -> Vec<String> {
    row.names().chain(row.file.map(|name| format!("--{name}"))).collect()
}

fn zsh() -> String {
    let mut out = String::from(
        "#compdef ciderfs\n# Completions of ciderfs for zsh. Put it into a directory of $fpath as _ciderfs.\n\
         _ciderfs() {\n  local -a commands\n  local state line\n  commands=(\n",
    );
    for command in EVERY {
        let _ =
            writeln!(out, "    '{}:{}'", command.name(), quoted(command.about().help).replace(':', "\\:"));
    }
    out.push_str(
        "  )\n  _arguments -C '1:command:->command' '*::argument:->argument'\n  case $state in\n\
         \x20   command) _describe command commands;;\n    argument)\n      case $words[1] in\n",
    );
    for command in EVERY {
        let _ = writeln!(out, "        {}) _arguments \\", command.name());
        for row in rows(*command) {
            let text = bracketed(row.help);
            let action = match (row.kind, Values::of(row.kind)) {
                (Kind::Switch, _) => String::new(),
                (_, Values::Files) => format!(":{}:_files", row.value_name().to_lowercase()),
                (_, Values::Words(words)) => format!(":{}:({})", row.name, words.join(" ")),
                (_, Values::Free) => format!(":{}: ", row.value_name().to_lowercase().replace(':', "\\:")),
            };
            for name in row.names() {
                // A long name takes its value behind an equals sign, or as the next word.
                let sign = if row.kind != Kind::Switch && name.starts_with("--") { "=" } else { "" };
                let _ = writeln!(out, "          '{name}{sign}[{text}]{action}' \\");
            }
            if let Some(file) = row.file {
                let _ = writeln!(
                    out,
                    "          '--{file}=[file with the value of --{}]:file:_files' \\",
                    row.name
                );
            }
        }
        let words = match Values::of_word(command.word(0)) {
            Values::Words(words) => format!("'1:what:({})' '*:file:_files'", words.join(" ")),
            _ => "'*:file:_files'".into(),
        };
        let _ = writeln!(out, "          {words};;");
    }
    out.push_str("      esac;;\n  esac\n}\n\n# Loaded by name, or sourced.\n");
    out.push_str(
        "if [ \"$funcstack[1]\" = _ciderfs ]; then _ciderfs \"$@\"; else compdef _ciderfs ciderfs; fi\n",
    );
    out
}

fn fish() -> String {
    let mut out = String::from(
        "# Completions of ciderfs for fish. Put it into ~/.config/fish/completions, or: ciderfs completions fish | source\n",
    );
    for command in EVERY {
        let _ = writeln!(
            out,
            "complete -c ciderfs -n __fish_use_subcommand -f -a {} -d '{}'",
            command.name(),
            quoted(command.about().help)
        );
    }
    for command in EVERY {
        let when = format!("complete -c ciderfs -n '__fish_seen_subcommand_from {}'", command.name());
        for row in rows(*command) {
            let mut line = when.clone();
            for name in [row.name].iter().chain(row.aliases) {
                let _ = write!(line, " -{} {name}", if name.len() > 1 { 'l' } else { 's' });
            }
            match Values::of(row.kind) {
                Values::Files => line.push_str(" -r -F"),
                Values::Words(words) => _ = write!(line, " -x -a '{}'", words.join(" ")),
                Values::Free if row.kind == Kind::Switch => {}
                Values::Free => line.push_str(" -x"),
            }
            let _ = writeln!(out, "{line} -d '{}'", quoted(row.help));
            if let Some(file) = row.file {
                let _ = writeln!(out, "{when} -l {file} -r -F -d 'file with the value of --{}'", row.name);
            }
        }
        if let Values::Words(words) = Values::of_word(command.word(0)) {
            let _ = writeln!(out, "{when} -f -a '{}'", words.join(" "));
        }
    }
    out
}

/// A text between single quotes.
fn quoted(text: &str) -> String {
    text.replace('\'', "")
}

/// A text between brackets and single quotes.
fn bracketed(text: &str) -> String {
    quoted(text).replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

/// What is completed is what help shows.
#[cfg(test)]
mod tests {
    use super::super::help;
    use super::*;

    #[test]
    fn every_flag_that_is_there_is_completed_in_every_shell() {
        for shell in ["bash", "zsh", "fish"] {
            let script = script(shell).unwrap();
            for row in EVERY.iter().flat_map(|command| rows(*command)) {
                assert!(script.contains(row.name), "{shell}: {}", row.name);
            }
            assert!(!script.contains("writeback"), "{shell}: what is refused is not offered");
        }
        assert!(script("tcsh").is_none());
        assert!(help::program().contains("completions"));
    }
}
