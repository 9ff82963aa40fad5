use std::path::Path;

use super::super::cache_dirs;
use super::super::command::EVERY;
use super::super::table::{
    BUCKET, CACHE_DIR, FLAGS, HASH_PREFIX, LOG, O, QUIET, STORAGE, SUBDIR, TRASH_DAYS,
};
use super::*;

fn parse(command: Command, line: &str) -> Result<Args> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Args::parse(command, &words)
}

#[test]
fn flags_stand_anywhere_with_one_or_two_dashes() {
    let a = parse(Command::Format, "--storage=s3 META -trash-days 3 NAME --hash-prefix").unwrap();
    assert_eq!((a.count(), a.word(0), a.word(1)), (2, "META", "NAME"));
    assert_eq!((a.find(STORAGE), a.get(TRASH_DAYS), a.get(HASH_PREFIX)), (Some("s3"), 3, true));
    assert!(!parse(Command::Format, "--hash-prefix=false META NAME").unwrap().get(HASH_PREFIX));
    assert_eq!(parse(Command::Mount, "-o ro -o allow_other M P").unwrap().find(O), Some("ro,allow_other"));
}

#[test]
fn unknown_refused_and_malformed_flags_fail() {
    assert_eq!(parse(Command::Format, "--x=1 A B").unwrap_err().text, "unknown option: \"--x\"");
    let text = parse(Command::Mount, "--cahce-size=1 A B").unwrap_err().text;
    assert_eq!(text, "unknown option: \"--cahce-size\"; did you mean --cache-size?");
    assert!(parse(Command::Mount, "--writeback A B").unwrap_err().text.contains("not supported"));
    assert!(parse(Command::Mount, "--writeback=false A B").is_ok());
    assert!(parse(Command::Format, "--trash-days many A B").is_err());
    assert!(parse(Command::Format, "--trash-days").is_err());
    assert!(parse(Command::Format, "-abc A B").is_err());
    assert!(parse(Command::Mount, "--cache-size=10X A B").is_err());
}

#[test]
fn what_names_a_place_is_resolved_and_keeps_its_bytes() {
    let here = std::env::current_dir().unwrap();
    let odd = OsStr::from_bytes(b"m\xff\n \\");
    let words = [
        OsStr::new("sqlite3://v.db"),
        odd,
        OsStr::from_bytes(b"--log=l\xfe"),
        OsStr::new("--cache-dir"),
        OsStr::from_bytes(b"c\xfd"),
        OsStr::from_bytes(b"--subdir=a/\xfc"),
        OsStr::new("--bucket=o"),
    ];
    let a = Args::parse(Command::Mount, &words).unwrap();
    assert_eq!(a.place(0).as_os_str(), OsStr::new(&format!("sqlite3://{}/v.db", here.display())));
    assert_eq!(a.place(1), here.join(odd));
    assert_eq!(a.find(LOG), Some(&*here.join(OsStr::from_bytes(b"l\xfe"))));
    let cache = cache_dirs::Entry::Dir(here.join(OsStr::from_bytes(b"c\xfd")));
    assert_eq!(a.find(CACHE_DIR), Some(&[cache][..]));
    assert_eq!(a.find(SUBDIR), Some(Path::new(OsStr::from_bytes(b"a/\xfc"))));
    assert_eq!(a.find(BUCKET), Some(("o", &*here.join("o"))));
    let info = Args::parse(Command::Info, &["a", "/b", "--raw"]).unwrap();
    assert_eq!((info.place(0), info.place(1)), (&*here.join("a"), Path::new("/b")));
    let info = Args::parse(Command::Info, &["12", "-i"]).unwrap();
    assert_eq!(info.place(0), Path::new("12"));
    for (command, words) in [
        (Command::Format, [OsStr::new("redis://h/1"), OsStr::from_bytes(b"v\xff")]),
        (Command::Mount, [OsStr::from_bytes(b"--metrics=\xff"), OsStr::new("m")]),
    ] {
        let text = Args::parse(command, &words).unwrap_err().text;
        assert!(text.contains("not UTF-8") && text.contains("\\377"), "{text}");
    }
}

/// Values at the ends of a range, and values beyond them.
fn ends(kind: Kind) -> Option<(Vec<String>, Vec<String>)> {
    let text = |list: &[&str]| list.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    // What no number is, or none that fits anywhere.
    let mut bad = text(&[
        "-1",
        "-0",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "infinity",
        "1e400",
        "0x10",
        "1_000",
        "1,5",
        " 1",
        "1 ",
        "١",
        "--",
        "",
        "99999999999999999999",
        "340282366920938463463374607431768211456",
        "1.2.3",
    ]);
    let good = match kind {
        Kind::Number(from, to) => {
            bad.extend(text(&["1.5", "1M", "+1"]));
            bad.extend(from.checked_sub(1).map(|n| n.to_string()));
            bad.extend(to.checked_add(1).map(|n| n.to_string()));
            vec![from.to_string(), to.to_string()]
        }
        Kind::Share => {
            bad.extend(text(&["1.01", "2", "1.00000001"]));
            text(&["0", "0.25", "1"])
        }
        Kind::Bytes(_, from, to) => {
            bad.extend(text(&["16E", "8E", "18446744073709551616B", "18014398509481984K", "1X", "M"]));
            bad.extend(from.checked_sub(1).map(|n| format!("{n}B")));
            bad.push(format!("{}B", to + 1));
            vec![format!("{from}B"), format!("{to}B")]
        }
        Kind::Time(from, to) => {
            bad.extend(text(&["1y", "-1s", "1e3", "99999999999999999999h"]));
            bad.push(format!("{}s", to + 1));
            bad.extend((from > 0).then(|| format!("{}ms", from * 1000 - 1)));
            vec![from.to_string(), format!("{to}s")]
        }
        Kind::Address => {
            bad = text(&["127.0.0.1", ":", "h:-1", "h:65536", "h:99999999999999999999", "h:1x"]);
            text(&["", "127.0.0.1:0", "[::1]:65535"])
        }
        Kind::Switch
        | Kind::Text
        | Kind::Secret
        | Kind::Place
        | Kind::Inside
        | Kind::Dirs
        | Kind::Bucket
        | Kind::Choice(_)
        | Kind::Octal(_)
        | Kind::Rate => return None,
    };
    Some((good, bad))
}

#[test]
fn numbers_that_do_not_fit_are_refused_with_flag_value_and_range() {
    let mut numbers = 0;
    for flag in FLAGS {
        let Some((good, bad)) = ends(flag.kind) else { continue };
        numbers += 1;
        let command = if flag.commands.contains(&Command::Mount) { Command::Mount } else { flag.commands[0] };
        for value in good {
            let result = Args::parse(command, &[format!("--{}={value}", flag.name)]);
            let not_there = matches!(flag.status, Status::Missing(_) | Status::Only(..));
            let told = result.map_err(|e| e.text);
            let refused_so = told.as_ref().is_err_and(|t| t.contains("not supported"));
            assert!(told.is_ok() || (not_there && refused_so), "--{}={value}: {told:?}", flag.name);
        }
        let mut names = vec![format!("--{}", flag.name)];
        names.extend(flag.aliases.iter().map(|a| format!("-{a}")));
        for value in bad {
            for words in
                names.iter().flat_map(|n| [vec![format!("{n}={value}")], vec![n.clone(), value.clone()]])
            {
                let text = Args::parse(command, &words).unwrap_err().text;
                let named =
                    text.contains(&format!("--{}: ", flag.name)) && text.contains(&format!("{value:?}"));
                assert!(named && text.contains("use ") && text.contains(" to "), "{words:?}: {text}");
            }
        }
    }
    assert!(numbers > 40, "{numbers}");
}

#[test]
fn defaults_of_the_table_are_in_their_ranges() {
    for flag in FLAGS.iter().copied().filter(|f| !f.default.is_empty()) {
        assert!(flag.parse(OsStr::new(flag.default)).is_ok(), "--{}", flag.name);
    }
}

#[test]
fn two_dashes_end_the_options_of_every_command() {
    for command in EVERY.iter().copied() {
        for flag in table::of(command).filter(|f| f.status == Status::Ready) {
            let name = format!("--{}", flag.name);
            let a = Args::parse(command, &["--quiet", "a", "--", &name, "-x", "--", "b"]).unwrap();
            let given: Vec<_> = (0..a.count()).map(|i| a.given(i).to_str().unwrap()).collect();
            assert_eq!(given, ["a", &name, "-x", "--", "b"], "{command:?}");
            assert!(a.get(QUIET) && (flag.name == QUIET.name() || !a.is_given(flag)), "{command:?} {name}");
        }
    }
    let a = parse(Command::Mount, "-- M -P").unwrap();
    assert!(a.place(1).ends_with("-P"));
}

#[test]
fn every_flag_has_a_unique_name_per_command() {
    for command in EVERY.iter().copied() {
        let mut names: Vec<&str> = table::of(command)
            .flat_map(|f| [f.name].into_iter().chain(f.aliases.iter().copied()).chain(f.file))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{command:?}");
    }
}

#[test]
fn the_command_is_the_first_word_that_is_no_value() {
    for (line, at) in [
        ("mount M P", Some(0)),
        ("--quiet mount", Some(1)),
        ("--secret-key config config M", Some(2)),
        ("--secret-key-file=config -v config M", Some(2)),
        ("--secret-key-file x config M", Some(2)),
        ("--no-such mount", Some(1)),
        ("--secret-key", None),
        ("", None),
    ] {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        assert_eq!(first_argument(&words), at, "{line}");
    }
}
