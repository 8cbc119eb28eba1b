//! The search methods by name.
//!
//! `ROWS` is the only list of them: the values and help of the option `search`, the table of `docs/search.md` and the
//! messages that name methods are printed from it. A new method is a file in `methods` with a [`SearchRow`] and a line in
//! the list (`docs/guides/add-a-search.md`).

use super::methods::{SearchRow, auto, ilp, msq, sensitivity, uniform};
use std::fmt;
use std::str::FromStr;

/// All methods, the default first.
static ROWS: &[&SearchRow] = &[&auto::ROW, &msq::ROW, &sensitivity::ROW, &ilp::ROW, &uniform::ROW];

/// A search method of the list.
#[derive(Clone, Copy)]
pub struct Method(&'static SearchRow);

impl Method {
    /// All methods.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().copied().map(Self)
    }

    /// What there is to know of it.
    pub fn row(self) -> &'static SearchRow {
        self.0
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }
}

/// The table of methods in `docs/search.md`.
pub fn table() -> String {
    let mut rows = vec!["| name | how bits are chosen | measures | options |\n|---|---|---|---|\n".to_owned()];
    for (at, row) in ROWS.iter().enumerate() {
        let default = if at == 0 { " (default)" } else { "" };
        let flags: Vec<String> = row.options.iter().map(|key| format!("`--{}`", key.replace('_', "-"))).collect();
        let SearchRow { name, help, measures, .. } = row;
        rows.push(format!("| `{name}`{default} | {help} | {measures} | {} |\n", flags.join(", ")));
    }
    rows.concat()
}

impl Default for Method {
    fn default() -> Self {
        Self(ROWS[0])
    }
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Method {}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name)
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.name, f)
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::all().map(Self::name).collect::<Vec<_>>().join(", ");
        Self::all().find(|method| method.name() == text).ok_or_else(|| format!("the searches are {}", names()))
    }
}

impl serde::Serialize for Method {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> serde::Deserialize<'de> for Method {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Method {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "enum": Self::all().map(Self::name).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for method in Method::all() {
            assert_eq!(method.name().parse(), Ok(method));
            let json = serde_json::to_string(&method).unwrap();
            assert_eq!(serde_json::from_str::<Method>(&json).unwrap(), method);
        }
        assert_eq!("best".parse::<Method>(), Err("the searches are auto, msq, sensitivity, ilp, uniform".to_owned()));
        assert_eq!(Method::default().name(), "auto");
    }

    /// Between the markers of the document.
    #[test]
    fn the_table_of_the_documentation_is_the_list() {
        let document = include_str!("../../../docs/search.md");
        let found = document.split("<!-- searches -->\n").nth(1).unwrap_or_default();
        assert_eq!(found, table(), "docs/search.md");
    }
}
