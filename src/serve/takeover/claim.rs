//! `Claim`: what a new process has of the running one, from its start until it takes over.

use std::{
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::FileTypeExt, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

use super::{Role, handover::Item, wire};

/// How long the running process may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a new process has of the running one; dropped, that one goes on as before.
pub(super) struct Claim {
    stream: UnixStream,
    /// The running process.
    pub(super) pid: u32,
    /// What it holds and was not taken yet.
    items: Vec<Item>,
}

impl Claim {
    /// Asks the process that offers what it holds at `path` for it; none when nobody does. Blocks.
    pub(super) fn stake(path: &Path) -> io::Result<Option<Self>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            // Whoever was there has not tidied up.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return if std::fs::metadata(path)?.file_type().is_socket() {
                    Ok(None)
                } else {
                    Err(io::Error::other("there is a file that is no socket"))
                };
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                return if folder.is_none_or(Path::is_dir) { Ok(None) } else { Err(error) };
            }
            Err(error) => return Err(error),
        };
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let wire::Greeting { pid, items } = wire::receive(&stream)?;
        let items = items.ok_or_else(|| {
            io::Error::other(format!("another process is already taking over from process {pid}"))
        })?;
        Ok(Some(Self { stream, pid, items }))
    }

    /// What the running process has for this role under this name.
    pub(super) fn take(&mut self, role: Role, name: &str) -> Vec<OwnedFd> {
        let wanted = |item: &mut Item| item.role == role && item.name == name;
        self.items.extract_if(.., wanted).map(|item| item.fd).collect()
    }

    /// Tells the running process that this one goes on, and waits until it offers its sockets no longer. Blocks.
    pub(super) fn complete(mut self) -> io::Result<()> {
        self.stream.write_all(wire::READY)?;
        let mut answer = [0; wire::YOURS.len()];
        self.stream.read_exact(&mut answer)
    }
}
