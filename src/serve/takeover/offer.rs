//! `Offer`: where the running process hands its sockets to the next one.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::{UnixListener, UnixStream};

use super::wire;

/// How long it rests when the system has no room for another connection.
const REST: Duration = Duration::from_millis(100);

/// Where the running process hands its sockets to the next one; its file goes with it.
pub(super) struct Offer {
    listener: UnixListener,
    path: PathBuf,
    /// Who may take over: the user of this process.
    owner: u32,
    /// The file that was made, which tells it from one that another process has made since.
    inode: u64,
}

impl Offer {
    /// In place of a socket that nobody listens on any longer, or of the one of a process that hangs and was taken over
    /// from (`abandoned`); another file is never replaced.
    pub(super) async fn bind(path: &Path, abandoned: bool) -> io::Result<Self> {
        let inode = || fs::symlink_metadata(path).ok().filter(|file| file.file_type().is_socket());
        let inode = || inode().map(|file| file.ino());
        if let Some(found) = inode() {
            let gone = abandoned
                || match UnixStream::connect(path).await {
                    Ok(_) => false,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => true,
                    // It was removed meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                    // It has no room for another connection.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                    Err(error) => return Err(error),
                };
            if !gone {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process offers its sockets there",
                ));
            }
            // Somebody else may have put another there since.
            if inode() == Some(found) {
                fs::remove_file(path)?;
            }
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let file = fs::symlink_metadata(path)?;
        Ok(Self { listener, path: path.into(), owner: file.uid(), inode: file.ino() })
    }

    /// Whether the process behind a connection becomes ready; one that gives up before changes nothing.
    pub(super) async fn awaited(&self, claimant: &UnixStream) -> bool {
        tokio::select! {
            ready = says_ready(claimant) => ready,
            never = self.refuse() => match never {},
        }
    }

    /// One at a time takes over.
    async fn refuse(&self) -> Infallible {
        loop {
            let _ = wire::greet(&self.next().await, Err(wire::Refusal::Claimed));
        }
    }

    /// The next connection of a process of our user.
    pub(super) async fn next(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| peer.uid() == self.owner) => {
                    return stream;
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether the other process becomes ready; it may take as long as its models do.
async fn says_ready(stream: &UnixStream) -> bool {
    let mut said = Vec::with_capacity(2 * wire::READY.len());
    while said.len() < wire::READY.len() {
        if stream.readable().await.is_err() {
            return false;
        }
        let mut bytes = [0; wire::READY.len()];
        match stream.try_read(&mut bytes) {
            Ok(0) => return false,
            Ok(n) => said.extend_from_slice(&bytes[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    said == wire::READY
}
