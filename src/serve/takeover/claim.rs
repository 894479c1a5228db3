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

use rustix::net::{RecvFlags, recv};

use super::{Role, handover::Item, wire};

/// How long the running process may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to let go once this one is ready.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// What a new process has of the running one; dropped, that one goes on as before.
pub(super) struct Claim {
    stream: UnixStream,
    /// The running process.
    pub(super) pid: u32,
    /// What it holds and was not taken yet.
    items: Vec<Item>,
}

/// What has become of the running process when this one is ready.
pub(super) enum Ending {
    /// It ends, and offers nothing any more.
    Yours,
    /// It has waited long enough and goes on.
    Over,
    /// It says nothing, and hears that it has to end if it ever goes on.
    Hangs,
    /// It is gone.
    Gone,
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
        let items = items.map_err(|refusal| {
            io::Error::other(match refusal {
                wire::Refusal::Claimed => {
                    format!("another process is already taking over from process {pid}")
                }
                wire::Refusal::Changing => {
                    format!(
                        "process {pid} is being changed (a deploy, a change by hand); try again after that"
                    )
                }
            })
        })?;
        Ok(Some(Self { stream, pid, items }))
    }

    /// What the running process has for this role under this name.
    pub(super) fn take(&mut self, role: Role, name: &str) -> Vec<OwnedFd> {
        let wanted = |item: &mut Item| item.role == role && item.name == name;
        self.items.extract_if(.., wanted).map(|item| item.fd).collect()
    }

    /// Whether the running process waits no longer.
    pub(super) fn is_over(&self) -> bool {
        let mut said = [0; wire::OVER.len()];
        let got = recv(&self.stream, &mut said, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        got.is_ok() && said == wire::OVER
    }

    /// Tells the running process that this one goes on, and waits until it offers its sockets no longer. Blocks.
    pub(super) fn complete(mut self) -> Ending {
        // What it said before it went can be read still.
        let _ = self.stream.set_read_timeout(Some(END_TIMEOUT));
        let _ = self.stream.write_all(wire::READY);
        let mut answer = [0; wire::YOURS.len()];
        match self.stream.read_exact(&mut answer) {
            Ok(()) if answer == wire::OVER => Ending::Over,
            Ok(()) => Ending::Yours,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ending::Hangs
            }
            Err(_) => Ending::Gone,
        }
    }
}
