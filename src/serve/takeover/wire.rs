//! What two processes say to each other: one line of JSON with the descriptors beside it, then one word each.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};

use super::{Role, handover::Item};

/// Most sockets and locks that are handed over.
pub(super) const ITEMS_MAX: usize = 16;
/// From the new process: it is ready and accepts.
pub(super) const READY: &[u8] = b"ready\n";
/// The answer to that: the new process may offer its sockets now.
pub(super) const YOURS: &[u8] = b"yours\n";
/// What this file describes; raised when it changes.
const VERSION: u32 = 1;
/// Longest line, so that it goes through in one piece.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// What the running process says to the new one.
pub(super) struct Greeting {
    pub(super) pid: u32,
    /// None: another one is taking over.
    pub(super) items: Option<Vec<Item>>,
}

/// A greeting as a line of JSON; the descriptors come beside it, in the order of their names.
#[derive(Serialize, Deserialize)]
struct Line {
    version: u32,
    pid: u32,
    items: Option<Vec<Name>>,
}

#[derive(Serialize, Deserialize)]
struct Name {
    role: Role,
    name: String,
}

/// Hands over what there is, or with none says that another process is taking over. A fresh connection has room for it.
pub(super) fn greet(stream: impl AsFd, items: Option<&[Item]>) -> io::Result<()> {
    let name = |item: &Item| Name { role: item.role, name: item.name.clone() };
    let names = items.map(|items| items.iter().map(name).collect());
    let mut line = serde_json::to_vec(&Line { version: VERSION, pid: std::process::id(), items: names })?;
    line.push(b'\n');
    if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::other("the names are too long"));
    }
    let fds: Vec<_> = items.unwrap_or_default().iter().map(|item| item.fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(ITEMS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// What the running process says. It says it in one piece.
pub(super) fn receive(stream: impl AsFd) -> io::Result<Greeting> {
    let mut bytes = vec![0; LINE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(ITEMS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let line = bytes[..got.bytes].strip_suffix(b"\n");
    let line = line.ok_or_else(|| invalid("it ended before it said anything".into()))?;
    let line: Line =
        serde_json::from_slice(line).map_err(|error| invalid(format!("it is not understood: {error}")))?;
    if line.version != VERSION {
        let Line { version, pid, .. } = line;
        return Err(invalid(format!("process {pid} hands over in version {version}, this one in {VERSION}")));
    }
    let items = line.items.map(|names| {
        if names.len() != fds.len() {
            return Err(invalid(format!("{} descriptors came for {} names", fds.len(), names.len())));
        }
        Ok(names.into_iter().zip(fds).map(|(Name { role, name }, fd)| Item { role, name, fd }).collect())
    });
    Ok(Greeting { pid: line.pid, items: items.transpose()? })
}
