//! Commands and flags, from the reference that the program writes; and the command lines that a text shows.

use std::collections::{HashMap, HashSet};

/// The program, and its names as a mount helper.
const NAMES: [&str; 3] = ["ciderfs", "mount.ciderfs", "mount.juicefs"];

/// What the program takes.
pub struct Reference {
    /// Flags of each command, with their dashes; those that are refused are not among them.
    commands: HashMap<String, HashSet<String>>,
    /// Flags of every command.
    global: HashSet<String>,
    /// Flags that some command refuses, and tells why.
    refused: HashSet<String>,
}

impl Reference {
    /// From `ciderfs man --markdown`.
    pub fn parse(markdown: &str) -> Self {
        let mut commands: HashMap<String, HashSet<String>> = HashMap::new();
        let (mut global, mut refused) = (HashSet::new(), HashSet::new());
        let mut command = None;
        for line in markdown.lines() {
            if let Some(title) = line.strip_prefix("### `") {
                let name = title.split([' ', '`']).next().unwrap_or_default().to_owned();
                commands.entry(name.clone()).or_default();
                command = Some(name);
            } else if line.starts_with("## ") {
                command = None;
            } else if let Some((names, about)) = line.strip_prefix("| `").and_then(|l| l.split_once("` |")) {
                let flags = match &command {
                    Some(name) => commands.entry(name.clone()).or_default(),
                    None => &mut global,
                };
                if about.contains("[refused") {
                    refused.extend(names.split([' ', ',']).filter(|w| w.starts_with('-')).map(str::to_owned));
                    continue;
                }
                // Also the file of a secret.
                let words = names.split([' ', ',']).chain(about.split([' ', ',']));
                flags.extend(words.filter(|w| w.starts_with('-')).map(str::to_owned));
            }
        }
        Self { commands, global, refused }
    }

    /// Whether some command knows this flag, and be it to refuse it.
    #[must_use]
    pub fn has_flag(&self, flag: &str) -> bool {
        self.global.contains(flag)
            || self.refused.contains(flag)
            || self.commands.values().any(|flags| flags.contains(flag))
    }

    /// Why this command line, without the name of the program, cannot be.
    pub fn refuses(&self, words: &[String]) -> Option<String> {
        let is_flag = |word: &&String| word.starts_with('-') && word.len() > 1;
        let name = words.iter().find(|w| !is_flag(w));
        let nothing = HashSet::new();
        let flags = match name {
            Some(name) => match self.commands.get(name.as_str()) {
                Some(flags) => flags,
                None => return Some(format!("there is no command {name}")),
            },
            None => &nothing,
        };
        for word in words.iter().take_while(|w| *w != "--").filter(is_flag) {
            let flag = word.split('=').next().unwrap_or_default();
            if !flags.contains(flag) && !self.global.contains(flag) {
                let command = name.map_or("ciderfs", String::as_str);
                return Some(format!("{command} has no flag {flag}, or refuses it"));
            }
        }
        None
    }
}

/// The command lines of the program in a script, without its name. As a shell reads them, but for what no page needs.
pub fn command_lines(script: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut line: Option<Vec<String>> = None;
    // The program is given to another one: `deploy/tests/boot.sh target/debug/ciderfs`.
    let mut is_operand = false;
    for word in words(script) {
        let is_end = matches!(word.as_str(), ";" | "|" | "&" | "(" | ")" | "<" | ">");
        let program = word.rsplit('/').next().unwrap_or_default();
        match &mut line {
            Some(_) if is_end => found.extend(line.take()),
            Some(words) => words.push(word),
            None if is_end => is_operand = false,
            None if is_operand && word.contains('/') => {}
            None if word.ends_with(".sh") => is_operand = true,
            None if NAMES[0] == program => line = Some(Vec::new()),
            None if NAMES[1..].contains(&program) => line = Some(vec!["mount".to_owned()]),
            None => {}
        }
    }
    found.extend(line);
    found
}

/// Words and operators; the end of a line is `;`.
fn words(script: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = script.replace("\\\n", " ").chars().collect::<Vec<_>>().into_iter().peekable();
    let mut end = |word: &mut String| {
        if !word.is_empty() {
            all.push(std::mem::take(word));
        }
    };
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if word.is_empty() => while chars.next_if(|c| *c != '\n').is_some() {},
            (None, ' ' | '\t') => end(&mut word),
            (None, '\n' | ';' | '|' | '&' | '(' | ')' | '<' | '>') => {
                end(&mut word);
                let mut operator = if c == '\n' { ";" } else { "" }.to_owned();
                if operator.is_empty() {
                    operator.push(c);
                }
                end(&mut operator);
            }
            _ => word.push(c),
        }
    }
    end(&mut word);
    all
}
