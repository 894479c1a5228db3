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
}

impl Offer {
    /// In place of a socket that nobody listens on any longer; another file is never replaced.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, owner: fs::symlink_metadata(path)?.uid(), path: path.into() })
    }

    /// Returns when another process has taken over; one that gives up before it is ready changes nothing.
    pub(super) async fn taken(self, hand: impl Fn(&UnixStream) -> io::Result<()>) {
        loop {
            let claimant = self.next().await;
            if hand(&claimant).is_err() {
                continue;
            }
            let ready = tokio::select! {
                ready = says_ready(&claimant) => ready,
                never = self.refuse() => match never {},
            };
            if ready {
                // First, so that the other process can make its own.
                drop(self);
                let _ = claimant.try_write(wire::YOURS);
                return;
            }
        }
    }

    /// One at a time takes over.
    async fn refuse(&self) -> Infallible {
        loop {
            let _ = wire::greet(&self.next().await, None);
        }
    }

    /// The next connection of a process of our user.
    async fn next(&self) -> UnixStream {
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
        let _ = fs::remove_file(&self.path);
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
