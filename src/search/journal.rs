//! What a search has measured, on disk as it goes.
//!
//! A search is a chain of decisions that follow from measurements, and a measurement follows from the plan measured. So
//! it is enough to write each down: started again after it was killed, a search makes the same decisions, finds what it
//! measured before in the journal, and goes on where it was.
//!
//! The file is JSON, one record a line: first what the search was started with, then measurements. A last line that was
//! cut short is left out. Journals of other machines, which measured a part each, are [added](Journal::add).

use crate::search::SearchError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Measurements by what was measured.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    known: HashMap<String, serde_json::Value>,
    file: Option<(PathBuf, File)>,
    resumed: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// What the search was started with.
    started: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: String,
    value: serde_json::Value,
}

impl Journal {
    /// Goes on with the journal at `path` if it is that of a search started with the same, or begins a new one.
    pub(crate) fn open(path: &Path, started: &str) -> Result<Self, SearchError> {
        let failed = |error: std::io::Error| SearchError::Journal { path: path.to_owned(), reason: error.to_string() };
        let mut journal = Self::default();
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = complete.lines();
        let header = lines.next().and_then(|line| serde_json::from_str::<Header>(line).ok());
        let goes_on = header.is_some_and(|header| header.started == started);
        if goes_on {
            for record in lines.map_while(|line| serde_json::from_str::<Record>(line).ok()) {
                journal.known.insert(record.key, record.value);
            }
            journal.resumed = journal.known.len();
        } else {
            let header = serde_json::to_string(&Header { started: started.to_owned() }).unwrap_or_default();
            std::fs::write(path, header + "\n").map_err(failed)?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        if goes_on {
            file.set_len(complete.len() as u64).map_err(failed)?;
        }
        journal.file = Some((path.to_owned(), file));
        Ok(journal)
    }

    /// Adds the measurements of a journal that was finished elsewhere. One of a search started with something else, and one
    /// that is damaged, is an error.
    pub(crate) fn add(&mut self, path: &Path, started: &str) -> Result<(), SearchError> {
        let failed = |reason: String| SearchError::Measurements { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let mut lines = text.lines();
        let header = lines.next().and_then(|line| serde_json::from_str::<Header>(line).ok());
        let header = header.ok_or_else(|| failed("these are no measurements of `search --shard`".to_owned()))?;
        if header.started != started {
            return Err(failed("measured with another model, other data or options, or another version".to_owned()));
        }
        for (at, line) in lines.enumerate() {
            let record: Record = serde_json::from_str(line)
                .map_err(|_| failed(format!("line {} is damaged: measure this part again", at + 2)))?;
            self.known.entry(record.key).or_insert(record.value);
        }
        self.resumed = self.known.len();
        Ok(())
    }

    /// How many measurements were there before the search began.
    pub(crate) fn resumed(&self) -> usize {
        self.resumed
    }

    /// What was measured for a key.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.known.get(key).and_then(|value| serde_json::from_value(value.clone()).ok())
    }

    /// Writes a measurement down.
    pub(crate) fn put(&mut self, key: &str, value: &impl Serialize) -> Result<(), SearchError> {
        let value = serde_json::to_value(value).unwrap_or_default();
        let record = Record { key: key.to_owned(), value };
        if let Some((path, file)) = &mut self.file {
            let line = serde_json::to_string(&record).unwrap_or_default() + "\n";
            let failed = |error: std::io::Error| SearchError::Journal { path: path.clone(), reason: error.to_string() };
            file.write_all(line.as_bytes()).map_err(failed)?;
        }
        self.known.insert(record.key, record.value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        (folder, path)
    }

    #[test]
    fn measurements_are_found_again_to_the_last_bit() {
        let (_folder, path) = temporary();
        // Of a thousand numbers, quick parsing has the last bit of some wrong.
        let values: Vec<f64> = (1..1000).map(|at| f64::from(at).sqrt() * 1e-7).collect();
        Journal::open(&path, "a").unwrap().put("k", &values).unwrap();
        let journal = Journal::open(&path, "a").unwrap();
        assert_eq!(journal.resumed(), 1);
        assert!(journal.get::<Vec<f64>>("k").unwrap() == values);
    }

    #[test]
    fn a_line_cut_short_is_left_out() {
        let (_folder, path) = temporary();
        let mut journal = Journal::open(&path, "a").unwrap();
        journal.put("k", &1).unwrap();
        journal.put("l", &2).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();
        let mut journal = Journal::open(&path, "a").unwrap();
        assert_eq!((journal.get::<i32>("k"), journal.get::<i32>("l")), (Some(1), None));
        journal.put("m", &3).unwrap();
        assert_eq!(Journal::open(&path, "a").unwrap().get::<i32>("m"), Some(3));
    }

    #[test]
    fn another_search_begins_anew() {
        let (_folder, path) = temporary();
        Journal::open(&path, "a").unwrap().put("k", &1).unwrap();
        assert_eq!(Journal::open(&path, "b").unwrap().resumed(), 0);
        assert_eq!(Journal::open(&path, "a").unwrap().resumed(), 0);
    }
}
