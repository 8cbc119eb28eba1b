//! `.npz` archives: zip files of `.npy` members.
//!
//! Rows are read at their offsets, so that memory does not grow with the archive. A stored member is read from the
//! archive itself; a deflated member is inflated once into an unnamed temporary file in `TMPDIR`, which the system
//! frees with the handle. Sizes in the archive are not trusted: the member's header bounds the inflated bytes, and
//! header, stated size and data must agree.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::error::NpyError;
use super::error::{DataError, Place};
use super::npy::{Header, Rows};
use super::temporary::Spool;

/// An open archive.
pub(super) struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    members: Vec<(String, usize)>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        let not_archive = |error: ZipError| {
            let reason = match &error {
                _ if is_cut_off(path, &error) => {
                    "the file ends too early: it was not copied or written whole".to_owned()
                }
                _ if fs::metadata(path).is_ok_and(|file| file.len() == 0) => "the file is empty".to_owned(),
                ZipError::InvalidArchive(_) => "it is no zip file".to_owned(),
                error => error.to_string(),
            };
            DataError::NotArchive { path: path.to_owned(), reason }
        };
        let zip = ZipArchive::new(BufReader::new(file)).map_err(not_archive)?;
        let mut members = Vec::new();
        for index in 0..zip.len() {
            let Some(Ok(name)) = zip.name_for_index(index) else { continue };
            if let Some(array) = name.strip_suffix(".npy") {
                members.push((array.to_owned(), index));
            }
        }
        Ok(Self { path: path.to_owned(), zip, members })
    }

    /// The arrays, in the order of the archive.
    pub(super) fn names(&self) -> Vec<String> {
        self.members.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.members.iter().any(|(n, _)| n == name)
    }

    pub(super) fn place(&self, name: &str) -> Place {
        Place::array(&self.path, name)
    }

    /// The header of an array.
    pub(super) fn header(&mut self, name: &str) -> Result<Header, DataError> {
        self.member(name, |member, _| Header::read(member))
    }

    /// The rows of an array, on disk.
    pub(super) fn rows(&mut self, name: &str) -> Result<Rows, DataError> {
        let place = self.place(name);
        self.member(name, |member, path| {
            let header = Header::read(member)?;
            header.check_payload(member.size().saturating_sub(header.data_start))?;
            let (file, start) = match member.data_start() {
                Some(start) if member.compression() == CompressionMethod::Stored => {
                    stored(path, start, member.size(), &header)?
                }
                _ => (inflate(member, header.payload()?)?, 0),
            };
            Rows::new(file, start, header, place)
        })
    }

    fn member<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut ZipFile<'_, BufReader<File>>, &Path) -> Result<T, NpyError>,
    ) -> Result<T, DataError> {
        let place = self.place(name);
        let index = self.members.iter().find(|(n, _)| n == name).map(|&(_, index)| index);
        let missing = || DataError::MissingArray {
            path: self.path.clone(),
            wanted: name.to_owned(),
            input: name.to_owned(),
            present: self.members.iter().map(|(n, _)| n.clone()).collect(),
        };
        let index = index.ok_or_else(missing)?;
        let member = self.zip.by_index(index).map_err(|error| match error {
            ZipError::Io(error) => error.into(),
            error => NpyError::Read(io::Error::other(error)),
        });
        let result = member.and_then(|mut member| read(&mut member, &self.path));
        result.map_err(|reason| DataError::npy(&place, reason))
    }
}

/// Whether a file that cannot be opened as an archive ends too early: it begins as an archive does, whose list of members,
/// at the end, is not there, or it is shorter than any archive.
fn is_cut_off(path: &Path, error: &ZipError) -> bool {
    let mut start = [0; 4];
    let begins = File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"PK\x03\x04";
    match error {
        ZipError::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        ZipError::InvalidArchive(_) => begins,
        _ => false,
    }
}

/// A second handle on the archive, and the offset of the elements in it.
fn stored(path: &Path, start: u64, size: u64, header: &Header) -> Result<(File, u64), NpyError> {
    let file = File::open(path)?;
    let wanted = header.payload()?;
    let available = file.metadata()?.len().saturating_sub(start).min(size);
    header.check_payload(available.saturating_sub(header.data_start))?;
    let offset = start.checked_add(header.data_start).ok_or(NpyError::Truncated { found: 0, wanted })?;
    Ok((file, offset))
}

/// The rest of the member in a temporary file: `wanted` bytes, or an error. Reading to the end checks the checksum.
fn inflate(member: &mut impl Read, wanted: u64) -> Result<File, NpyError> {
    let mut spool = Spool::new()?;
    let found = io::copy(&mut member.take(wanted.saturating_add(1)), &mut spool)?;
    if found < wanted {
        return Err(NpyError::Truncated { found, wanted });
    }
    if found > wanted {
        return Err(NpyError::TooLong { found, wanted });
    }
    Ok(spool.finish()?)
}
