//! Files that appear completely or not at all, one alone or several together.

use super::ExternalError;
use std::fs::File;
use std::io::{Error, ErrorKind, Result as IoResult, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempPath};

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file cannot be written.
    #[error("cannot write `{path}`: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder of the file does not exist.
    #[error("cannot write `{path}`: there is no folder `{folder}`", path = path.display(), folder = folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// The path names no file.
    #[error("cannot write `{path}`: it names no file", path = path.display())]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
    /// A device, a pipe or a folder has the name.
    #[error("cannot write `{path}`: it is no ordinary file", path = path.display())]
    NoOrdinaryFile {
        /// The path.
        path: PathBuf,
    },
    /// The data file to be written is the one the model's own weights are read from.
    #[error("`{path}` holds the weights of the input; choose another name for the output", path = path.display())]
    OverwritesWeights {
        /// The file.
        path: PathBuf,
    },
    /// External elements of the input cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
}

/// Files that appear together when all of them are complete, or not at all.
///
/// Each is written under a temporary name in its own folder, and [`FileSet::commit`] renames them. Of a set that is dropped
/// before that nothing is left.
#[derive(Debug, Default)]
pub struct FileSet {
    complete: Vec<(TempPath, PathBuf)>,
}

impl FileSet {
    /// Adds a file with these bytes.
    pub fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
        self.add_with(path, |file| file.write_all(bytes))
    }

    /// Adds a file that is written piece by piece.
    pub fn add_with(&mut self, path: &Path, write: impl FnOnce(&mut File) -> IoResult<()>) -> Result<(), SaveError> {
        let mut file = temporary(path)?;
        write(file.as_file_mut()).map_err(|source| SaveError::Write { path: path.to_owned(), source })?;
        self.add_written(file, path)
    }

    /// Adds a temporary file that is written.
    pub(super) fn add_written(&mut self, file: NamedTempFile, path: &Path) -> Result<(), SaveError> {
        file.as_file().sync_all().map_err(|source| SaveError::Write { path: path.to_owned(), source })?;
        self.complete.push((file.into_temp_path(), path.to_owned()));
        Ok(())
    }

    /// Gives all files their names, in the order in which they were added. Where one cannot be, those that were not there
    /// before are removed again.
    pub fn commit(self) -> Result<(), SaveError> {
        self.complete.iter().try_for_each(|(_, path)| refuse_special(path))?;
        let mut made = Vec::new();
        for (file, path) in self.complete {
            let is_new = !path.exists();
            if let Err(error) = file.persist(&path) {
                for path in made {
                    let _ = std::fs::remove_file(path);
                }
                return Err(SaveError::Write { path, source: error.error });
            }
            made.extend(is_new.then_some(path));
        }
        Ok(())
    }
}

/// Writes a file that appears completely or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    write_file_with(path, |file| file.write_all(bytes))
}

/// Writes a file piece by piece; it appears completely or not at all.
pub fn write_file_with(path: &Path, write: impl FnOnce(&mut File) -> IoResult<()>) -> Result<(), SaveError> {
    let mut files = FileSet::default();
    files.add_with(path, write)?;
    files.commit()
}

/// Fails where a [`FileSet`] would: if the path names no file, or its folder takes no new file. Meant to be called before
/// long work.
pub fn check_writable(path: &Path) -> Result<(), SaveError> {
    if path.file_name().is_none() {
        return Err(SaveError::NoFileName { path: path.to_owned() });
    }
    refuse_special(path)?;
    temporary(path).map(drop)
}

/// Refuses a path that is not a file, since a rename would replace a device, a pipe or a folder.
fn refuse_special(path: &Path) -> Result<(), SaveError> {
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(SaveError::NoOrdinaryFile { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// The folder that a path is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary file in the folder of a path, with the permissions an ordinary new file would have.
pub(super) fn temporary(path: &Path) -> Result<NamedTempFile, SaveError> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.prefix(".msq-onnx-").tempfile_in(folder_of(path)).map_err(|error| not_begun(path, &error))
}

/// Why a temporary file beside a file could not be made.
fn not_begun(path: &Path, error: &Error) -> SaveError {
    let (path, folder) = (path.to_owned(), folder_of(path));
    if error.kind() == ErrorKind::NotFound && !folder.exists() {
        return SaveError::NoFolder { folder: folder.to_owned(), path };
    }
    // Only the kind, because the text of the error names the temporary file.
    SaveError::Write { path, source: error.kind().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_together() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&b, "old").unwrap();
        let mut files = FileSet::default();
        files.add(&a, b"1").unwrap();
        files.add(&b, b"2").unwrap();
        assert!(!a.exists());
        assert_eq!(std::fs::read_to_string(&b).unwrap(), "old");
        files.commit().unwrap();
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert_eq!(std::fs::read_to_string(&b).unwrap(), "2");
    }

    #[test]
    fn a_set_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = FileSet::default();
        files.add(&folder.path().join("a"), b"1").unwrap();
        let full = |_: &mut File| Err(Error::from(ErrorKind::StorageFull));
        let error = files.add_with(&folder.path().join("b"), full).unwrap_err();
        assert!(matches!(error, SaveError::Write { .. }), "{error}");
        drop(files);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    /// The second name is that of a folder by the time the files get theirs.
    #[test]
    fn none_appears_where_one_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        let mut files = FileSet::default();
        files.add(&a, b"1").unwrap();
        files.add(&b, b"2").unwrap();
        std::fs::create_dir(&b).unwrap();
        assert!(matches!(files.commit(), Err(SaveError::NoOrdinaryFile { .. })));
        assert_eq!(names(folder.path()), ["b"]);
    }

    /// The folder of the second file is gone by then, which only the rename shows.
    #[test]
    fn what_has_its_name_is_removed_again() {
        let folder = tempfile::tempdir().unwrap();
        let (a, inner) = (folder.path().join("a"), folder.path().join("inner"));
        std::fs::create_dir(&inner).unwrap();
        let mut files = FileSet::default();
        files.add(&a, b"1").unwrap();
        files.add(&inner.join("b"), b"2").unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        assert!(matches!(files.commit(), Err(SaveError::Write { .. })));
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
