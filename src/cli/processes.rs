//! `--solver-processes`: further processes of this program, which learn together with this one.
//!
//! Each is started with the same arguments and its rank in a last one, does the same run, and writes nothing but messages.
//! They are joined by pipes: a message goes from the stdout of a process to this one, of rank 0, and those of the others
//! from here to its stdin; no port and no file is needed. When this process ends, by whatever way, theirs does: their stdin
//! ends, which cancels their run, and this one ends those it still has.

use super::output::Usage;
use anyhow::Context;
use msq_onnx::progress::Cancellation;
use msq_onnx::runtime::{PeerError, Peers};
use msq_onnx::solve::SolverRow;
use msq_onnx::{Error, SolveOptions};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The last argument of a process that another has started.
const RANK: &str = "--as-process=";
/// The longest message: more than the gradients of any model that fits into memory.
const LONGEST: u64 = 1 << 36;
/// How long this process waits before it looks whether it is cancelled.
const LOOK: Duration = Duration::from_millis(100);

/// The arguments without that of a process that another has started, and its rank; 0 for any other.
pub(crate) fn ranked(arguments: impl Iterator<Item = OsString>) -> (Vec<OsString>, usize) {
    let mut arguments: Vec<OsString> = arguments.collect();
    let rank = arguments.last().and_then(|last| last.to_str()?.strip_prefix(RANK)?.parse().ok());
    if rank.is_some() {
        arguments.pop();
    }
    (arguments, rank.unwrap_or(0))
}

/// The processes that learn together as options say, this one being of a rank: started, if it is 0. None where one learns
/// alone.
pub(crate) fn started(
    rank: usize,
    options: &SolveOptions,
    cancellation: &Cancellation,
) -> anyhow::Result<Option<Arc<dyn Peers>>> {
    let count = options.solver_processes;
    if count == 1 {
        return Ok(None);
    }
    let row = options.solver.as_ref().map(SolverRow::of).transpose().map_err(Error::from)?;
    if !row.is_some_and(|row| row.has_option("solver_processes")) {
        let learning = SolverRow::all().filter(|row| row.has_option("solver_processes"));
        let names: Vec<String> = learning.map(|row| format!("`{}`", row.name)).collect();
        let names = names.join(", ");
        return Err(
            Usage(format!("--solver-processes is of solvers that learn; choose one of {names} by --solver")).into()
        );
    }
    Ok(Some(if rank == 0 {
        Arc::new(Hub::start(count, cancellation)?)
    } else {
        Arc::new(Member::new(rank, count, cancellation))
    }))
}

/// The process of rank 0, and those that it has started.
struct Hub {
    workers: Mutex<Vec<Worker>>,
    count: usize,
    cancellation: Cancellation,
}

/// A process that was started.
struct Worker {
    rank: usize,
    child: Child,
    /// `None` once it is closed.
    stdin: Option<ChildStdin>,
    messages: Receiver<Vec<u8>>,
    /// What it said on stderr, when it has ended.
    said: Option<JoinHandle<String>>,
}

impl Hub {
    fn start(count: usize, cancellation: &Cancellation) -> anyhow::Result<Self> {
        let workers = (1..count).map(|rank| {
            Worker::start(rank).with_context(|| format!("process {rank} of those that learn together does not start"))
        });
        let workers = Mutex::new(workers.collect::<anyhow::Result<_>>()?);
        Ok(Self { workers, count, cancellation: cancellation.clone() })
    }
}

impl Worker {
    fn start(rank: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).arg(format!("{RANK}{rank}")).env_remove("RUST_LOG");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let messages = messages(stdout, || ());
        let said = stderr.map(|stderr| std::thread::spawn(|| text(stderr)));
        Ok(Self { rank, child, stdin, messages, said })
    }

    fn receive(&mut self, cancellation: &Cancellation) -> Result<Vec<u8>, PeerError> {
        loop {
            match self.messages.recv_timeout(LOOK) {
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Timeout) if !cancellation.is_cancelled() => (),
                Err(_) => return Err(self.lost()),
            }
        }
    }

    fn send(&mut self, messages: &[Vec<u8>]) -> Result<(), PeerError> {
        let mut others = messages.iter().enumerate().filter(|(rank, _)| *rank != self.rank);
        let sent = self
            .stdin
            .as_mut()
            .map(|stdin| others.try_for_each(|(_, message)| put(stdin, message)).and_then(|()| stdin.flush()));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(self.lost()) }
    }

    /// Ends the process, and says how it did and the last it said.
    fn lost(&mut self) -> PeerError {
        let status = self.end();
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        let last = said.lines().last().map(|line| line.strip_prefix("error: ").unwrap_or(line).to_owned());
        PeerError::Lost { rank: self.rank, reason: last.map_or(status.clone(), |last| format!("{last} ({status})")) }
    }

    /// Ends the process, unless it has ended, and says how it did.
    fn end(&mut self) -> String {
        self.stdin = None;
        // Fails where it has ended.
        let _ = self.child.kill();
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

impl Peers for Hub {
    fn count(&self) -> usize {
        self.count
    }

    fn rank(&self) -> usize {
        0
    }

    fn exchange(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>, PeerError> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut messages = vec![message];
        for worker in workers.iter_mut() {
            messages.push(worker.receive(&self.cancellation)?);
        }
        workers.iter_mut().try_for_each(|worker| worker.send(&messages))?;
        Ok(messages)
    }
}

/// A process that another has started.
struct Member {
    rank: usize,
    count: usize,
    messages: Mutex<Receiver<Vec<u8>>>,
}

impl Member {
    fn new(rank: usize, count: usize, cancellation: &Cancellation) -> Self {
        let cancellation = cancellation.clone();
        // Nobody waits for the result any more.
        let messages = Mutex::new(messages(Some(io::stdin()), move || cancellation.cancel()));
        Self { rank, count, messages }
    }
}

impl Peers for Member {
    fn count(&self) -> usize {
        self.count
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn exchange(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>, PeerError> {
        let received = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |reason: String| PeerError::Lost { rank: 0, reason };
        let mut stdout = io::stdout().lock();
        put(&mut stdout, &message).and_then(|()| stdout.flush()).map_err(|error| lost(error.to_string()))?;
        let mut own = Some(message);
        let one = |rank| match own.take_if(|_| rank == self.rank) {
            Some(own) => Ok(own),
            None => received.recv().map_err(|error| lost(error.to_string())),
        };
        (0..self.count).map(one).collect()
    }
}

/// Reads messages in a thread of its own until they end.
fn messages(from: Option<impl Read + Send + 'static>, ended: impl FnOnce() + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        if let Some(mut from) = from {
            while let Ok(message) = get(&mut from) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        }
        // Before those who wait hear of it.
        ended();
    });
    receiver
}

/// Writes a message behind its length.
fn put(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    to.write_all(&(message.len() as u64).to_le_bytes())?;
    to.write_all(message)
}

/// Reads such a message.
fn get(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut len = [0; 8];
    from.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    let mut message = Vec::new();
    let read = from.take(len.min(LONGEST)).read_to_end(&mut message)?;
    if read as u64 == len { Ok(message) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// All that comes from a pipe.
fn text(mut from: ChildStderr) -> String {
    let mut bytes = Vec::new();
    // What came before it broke is there.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_the_last_argument() {
        let of = |arguments: &[&str]| ranked(arguments.iter().map(OsString::from));
        assert_eq!(of(&["msq-onnx", "a.onnx", "--as-process=2"]), (vec!["msq-onnx".into(), "a.onnx".into()], 2));
        assert_eq!(of(&["msq-onnx", "a.onnx"]), (vec!["msq-onnx".into(), "a.onnx".into()], 0));
        assert_eq!(of(&["msq-onnx", "--as-process=x"]).1, 0);
    }

    #[test]
    fn messages_are_read_back() {
        let mut bytes = Vec::new();
        for message in [&b"one"[..], b"", b"three"] {
            put(&mut bytes, message).unwrap();
        }
        // Cut off in the last.
        bytes.pop();
        let mut from = &bytes[..];
        assert_eq!(get(&mut from).unwrap(), b"one");
        assert_eq!(get(&mut from).unwrap(), b"");
        assert!(get(&mut from).is_err());
        assert!(get(&mut &u64::MAX.to_le_bytes()[..]).is_err());
    }
}
