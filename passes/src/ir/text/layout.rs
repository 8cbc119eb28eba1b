//! Lists on one line and on several lines.

/// Columns of indentation per level.
pub(super) const INDENT: usize = 2;

/// An entry of a list with one entry per line.
#[derive(Default)]
pub(super) struct Item {
    /// Comments on separate lines, above the entry.
    pub(super) notes: Vec<String>,
    pub(super) text: String,
    /// A comment behind the entry.
    pub(super) comment: Option<String>,
}

impl Item {
    pub(super) fn new(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

pub(super) fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

pub(super) fn list_of_items(items: &[Item], pad: usize) -> String {
    if items.iter().any(needs_lines) { block("[", items, "]", pad) } else { inline("[", items, "]") }
}

pub(super) fn needs_lines(item: &Item) -> bool {
    item.comment.is_some() || !item.notes.is_empty() || item.text.contains('\n')
}

pub(super) fn inline(open: &str, items: &[Item], close: &str) -> String {
    format!("{open}{}{close}", list(items, |item| item.text.clone()))
}

/// One entry per line, with the brackets on separate lines.
pub(super) fn block(open: &str, items: &[Item], close: &str, pad: usize) -> String {
    let inner = pad + INDENT;
    let line = |(index, item): (usize, &Item)| {
        let comma = if index + 1 < items.len() { "," } else { "" };
        let comment = item.comment.as_ref().map_or_else(String::new, |comment| format!("  # {comment}"));
        format!("{}{:inner$}{}{comma}{comment}\n", comment_lines(&item.notes, inner), "", item.text)
    };
    let lines: String = items.iter().enumerate().map(line).collect();
    format!("{open}\n{lines}{:pad$}{close}", "")
}

/// Comments on separate lines.
pub(super) fn comment_lines(notes: &[String], pad: usize) -> String {
    notes.iter().map(|note| format!("{:pad$}# {note}\n", "")).collect::<Vec<_>>().concat()
}

/// The list of a node's or a function's attributes.
pub(super) fn attribute_list(attributes: &[Item], pad: usize) -> String {
    match attributes.iter().any(needs_lines) {
        _ if attributes.is_empty() => String::new(),
        false => format!(" {}", inline("<", attributes, ">")),
        true => format!(" {}", block("<", attributes, ">", pad)),
    }
}

/// Declarations behind a signature, and the separator before the body.
pub(super) fn declarations(items: &[Item], pad: usize, commented: bool) -> String {
    match items {
        [] if commented => format!("\n{:pad$}", ""),
        [] => " ".to_owned(),
        _ => format!("\n{:pad$}{}\n{:pad$}", "", block("<", items, ">", pad), ""),
    }
}
