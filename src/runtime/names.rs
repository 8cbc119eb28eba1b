//! Names in messages: in backticks, and no more of them than one wants to read.

/// All names: `a`, `b`.
pub(crate) fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect();
    quoted.join(", ")
}

/// At most so many names, and how many more there are: `a`, `b` and 3 more.
pub(crate) fn first<S: AsRef<str>>(most: usize, names: &[S]) -> String {
    let shown = quoted(names.iter().take(most));
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_backticks_and_the_rest_is_counted() {
        let names = ["a", "b", "c"];
        assert_eq!(quoted(names), "`a`, `b`, `c`");
        assert_eq!(first(2, &names), "`a`, `b` and 1 more");
        assert_eq!(first(3, &names), "`a`, `b`, `c`");
        assert_eq!(first::<&str>(3, &[]), "");
    }
}
