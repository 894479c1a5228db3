//! `Claim`: what a new process has of the running one, from its start until it takes over.

use std::{
    io::{self, Read, Write},
    net::TcpListener,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
    time::Duration,
};

use super::{Role, handover::Socket, wire};

/// How long the running process may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a new process has of the running one; dropped, that one goes on as before.
pub(super) struct Claim {
    stream: UnixStream,
    /// The running process.
    pub(super) pid: u32,
    /// Its sockets that were not taken yet.
    sockets: Vec<Socket>,
    taken: bool,
}

impl Claim {
    /// Asks the process that offers its sockets at `path` for them; none when nobody does. Blocks.
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
        let wire::Greeting { pid, sockets } = wire::receive(&stream)?;
        let sockets = sockets.ok_or_else(|| {
            io::Error::other(format!("another process is already taking over from process {pid}"))
        })?;
        Ok(Some(Self { stream, pid, sockets, taken: false }))
    }

    /// The running process's sockets for this address.
    pub(super) fn take(&mut self, role: Role, address: &str) -> Vec<TcpListener> {
        let wanted = |socket: &mut Socket| socket.role == role && socket.address == address;
        let taken: Vec<_> = self.sockets.extract_if(.., wanted).map(|socket| socket.listener).collect();
        self.taken |= !taken.is_empty();
        taken
    }

    /// Whether any of its sockets was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Tells the running process that this one goes on, and waits until it offers its sockets no longer. Blocks.
    pub(super) fn complete(mut self) -> io::Result<()> {
        self.stream.write_all(wire::READY)?;
        let mut answer = [0; wire::YOURS.len()];
        self.stream.read_exact(&mut answer)
    }
}
