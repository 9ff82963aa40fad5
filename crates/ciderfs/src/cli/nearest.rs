//! What was perhaps meant by a word that means nothing.

/// The nearest of some names, if it is near: for a slip of the finger, not for a guess.
pub fn name(word: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let word = word.to_ascii_lowercase();
    let most = match word.len() {
        0..=2 => return None,
        3..=4 => 1,
        5..=9 => 2,
        _ => 3,
    };
    let near = names.filter(|name| name.len() > 1).map(|name| (distance(&word, &name), name));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, name)| name)
}

/// Letters to change, leave out, put in or exchange with the next one, to make one word of another.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Rows of the table: the one before the last, the last, and this one.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood_and_other_words_are_not() {
        let names =
            || ["mount", "umount", "format", "config", "cache-size", "cache-dir", "o"].map(String::from);
        for (word, want) in [
            ("mont", Some("mount")),
            ("mounr", Some("mount")),
            ("unmount", Some("umount")),
            ("foramt", Some("format")),
            ("cachesize", Some("cache-size")),
            ("cahce-dir", Some("cache-dir")),
            ("gateway", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(name(word, names().into_iter()).as_deref(), want, "{word}");
        }
    }
}
