//! Links of pages.

use ciderfs_testkit::documents::Page;

use super::{Found, Tree};

pub fn check(tree: &Tree) -> Found {
    let mut all = Found::default();
    for page in &tree.pages {
        all.add(of_page(tree, page));
    }
    all
}

/// Links of a page within the tree.
fn of_page(tree: &Tree, page: &Page) -> Found {
    let by_name = tree.by_name();
    let mut found = Found::default();
    let itself = tree.top.join(&page.name);
    let dir = itself.parent().unwrap_or(&tree.top);
    for (line, link) in &page.links {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        found.count += 1;
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { itself.clone() } else { dir.join(path) };
        let Ok(target) = target.canonicalize() else {
            found.wrong.push(format!("{}:{line}: {link} is not there", page.name));
            continue;
        };
        let name = tree.shown(&target);
        match by_name.get(name.as_str()) {
            Some(there) if !anchor.is_empty() && !there.anchors.contains(anchor) => {
                found.wrong.push(format!("{}:{line}: {name} has no heading #{anchor}", page.name));
            }
            None if !target.starts_with(&tree.top) || !anchor.is_empty() => {
                found.wrong.push(format!("{}:{line}: {link} leads to no page of the tree", page.name));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let tree = Tree::read().unwrap();
        let look = |text: &str| of_page(&tree, &Page::parse("docs/setup.md", text));
        for bad in [
            "[a](nothing.md)",
            "[a\nb](redis.md#no-such)",
            "![a](no.svg)",
            "[a](../../outside.md)",
            "[a](#nowhere)",
        ] {
            assert_eq!(look(bad).wrong.len(), 1, "{bad}");
        }
        for good in [
            "[a](redis.md)",
            "[a](redis.md#rights)",
            "![a](architecture.svg)",
            "[a](../deploy)",
            "[a](#nixos)",
        ] {
            let found = look(good);
            assert!(found.count == 1 && found.wrong.is_empty(), "{good}: {found:?}");
        }
        assert_eq!(look("`[a](nothing.md)` [b](https://nowhere.example/#a)").count, 0);
    }
}
