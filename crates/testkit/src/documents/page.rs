//! A page of Markdown, as far as tests look at it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Directories without pages of ours.
const NOT_OURS: [&str; 3] = ["target", "node_modules", "result"];

/// A code block.
pub struct Block {
    /// Line of its fence, from 1.
    pub line: usize,
    /// What stands behind the fence: the language, and words of ours.
    pub info: String,
    /// Its lines, without the indentation of the fence.
    pub text: String,
}

/// What a test does with a page, in its order.
pub enum Part {
    /// A code block.
    Block(Block),
    /// A comment `<!-- test: COMMANDS -->`, which readers do not see.
    Test {
        /// Line of its beginning, from 1.
        line: usize,
        /// The commands.
        text: String,
    },
}

/// A page.
pub struct Page {
    /// Path in the tree.
    pub name: String,
    /// Blocks and tests.
    pub parts: Vec<Part>,
    /// What links lead to, with their lines.
    pub links: Vec<(usize, String)>,
    /// Spans of code outside of blocks, with their lines.
    pub spans: Vec<(usize, String)>,
    /// Where links may lead to in it.
    pub anchors: HashSet<String>,
}

impl Page {
    /// Its code blocks.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.parts.iter().filter_map(|part| match part {
            Part::Block(block) => Some(block),
            Part::Test { .. } => None,
        })
    }

    /// Reads a text.
    pub fn parse(name: &str, text: &str) -> Self {
        let (mut parts, mut prose) = (Vec::new(), Vec::new());
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
        while let Some((line, first)) = lines.next() {
            let indented = first.trim_start();
            let indent = first.len() - indented.len();
            if indented.starts_with("```") || indented.starts_with("~~~") {
                let fence = &indented[..3];
                let mut text = String::new();
                for (_, inner) in lines.by_ref() {
                    if inner.trim().starts_with(fence) && inner.trim().trim_matches(['`', '~']).is_empty() {
                        break;
                    }
                    text.push_str(dedented(inner, indent));
                    text.push('\n');
                }
                let info = indented.trim_start_matches(['`', '~']).trim().to_owned();
                parts.push(Part::Block(Block { line, info, text }));
            } else if indented.starts_with("<!--") {
                let mut comment = indented.to_owned();
                while !comment.contains("-->") {
                    let (_, more) =
                        lines.next().unwrap_or_else(|| panic!("{name}:{line}: a comment without end"));
                    comment = comment + "\n" + dedented(more, indent);
                }
                let (inner, _) = comment.split_once("-->").expect("its end");
                if let Some(commands) = inner.trim_start_matches("<!--").trim().strip_prefix("test:") {
                    parts.push(Part::Test { line, text: commands.trim().to_owned() + "\n" });
                }
            } else {
                prose.push((line, first.to_owned()));
            }
        }
        let (mut links, mut spans) = (Vec::new(), Vec::new());
        let mut anchors = HashSet::new();
        let mut met: HashMap<String, usize> = HashMap::new();
        // Spans and links go over the ends of lines, within a paragraph.
        for paragraph in prose.chunk_by(|_, (_, line)| !line.trim().is_empty()) {
            let line = paragraph[0].0;
            let text: Vec<&str> = paragraph.iter().map(|(_, text)| text.as_str()).collect();
            let mut plain = String::new();
            for (i, piece) in text.join("\n").split('`').enumerate() {
                match i % 2 {
                    0 => plain.push_str(piece),
                    _ => spans.push((line, piece.replace('\n', " "))),
                }
            }
            links.extend(targets(&plain).into_iter().map(|target| (line, target)));
        }
        for (_, line) in &prose {
            let hashes = line.len() - line.trim_start_matches('#').len();
            if (1..=6).contains(&hashes) && line[hashes..].starts_with(' ') {
                let slug = slug(&line[hashes..]);
                let times = met.entry(slug.clone()).or_default();
                anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
                *times += 1;
            }
            for attribute in ["id=\"", "name=\""] {
                let named = line.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
                anchors.extend(named.map(str::to_owned));
            }
        }
        Self { name: name.to_owned(), parts, links, spans, anchors }
    }
}

/// A line without so many spaces before it, as far as they are there.
fn dedented(line: &str, indent: usize) -> &str {
    let spaces = line.len() - line.trim_start_matches(' ').len();
    &line[spaces.min(indent)..]
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading.trim();
    // Of a link the text stands there.
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(&before.replace('[', ""));
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let kept = text.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// What links and pictures of a text without code lead to.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in text.split("](").skip(1) {
        let target = rest.split(')').next().unwrap_or_default();
        found.extend(target.split_whitespace().next().map(str::to_owned));
    }
    for attribute in ["src=\"", "href=\"", "srcset=\""] {
        let values = text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(values.filter_map(|v| v.split_whitespace().next()).map(str::to_owned));
    }
    for line in text.lines().filter(|line| line.starts_with('[')) {
        if let Some((_, target)) = line.split_once("]: ") {
            found.push(target.trim().to_owned());
        }
    }
    found
}

/// Top of the tree.
pub fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the tree")
}

/// All pages of the tree, by name.
pub fn pages() -> Vec<Page> {
    let top = tree();
    let (mut pages, mut dirs) = (Vec::new(), vec![top.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the tree") {
            let path = entry.expect("an entry of the tree").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_dir = path.is_dir() && !path.is_symlink();
            if is_dir && !name.starts_with('.') && !NOT_OURS.contains(&name.as_str()) {
                dirs.push(path);
            } else if !is_dir && name.ends_with(".md") {
                let in_tree = path.strip_prefix(&top).expect("in the tree").display().to_string();
                pages.push(Page::parse(&in_tree, &fs::read_to_string(&path).expect("a page")));
            }
        }
    }
    pages.sort_by(|a, b| a.name.cmp(&b.name));
    pages
}
