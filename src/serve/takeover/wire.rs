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
pub(super) const YOURS: [u8; 6] = *b"yours\n";
/// The other answer, also before that: the running process has waited long enough and goes on.
pub(super) const OVER: [u8; YOURS.len()] = *b"over.\n";
/// What this file describes; raised when it changes.
const VERSION: u32 = 2;
/// Longest line, so that it goes through in one piece.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// What the running process says to the new one.
pub(super) struct Greeting {
    pub(super) pid: u32,
    pub(super) items: Result<Vec<Item>, Refusal>,
}

/// Why a new process is handed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Refusal {
    /// Another one is taking over.
    Claimed,
    /// The running process is being changed, for longer than can be waited for.
    Changing,
}

/// A greeting as a line of JSON; the descriptors come beside it, in the order of their names.
#[derive(Serialize, Deserialize)]
struct Line {
    version: u32,
    pid: u32,
    items: Vec<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
}

#[derive(Serialize, Deserialize)]
struct Name {
    role: Role,
    name: String,
}

/// Hands over what there is, or says why not. A fresh connection has room for it.
pub(super) fn greet(stream: impl AsFd, items: Result<&[Item], Refusal>) -> io::Result<()> {
    let name = |item: &Item| Name { role: item.role, name: item.name.clone() };
    let (items, refusal) = match items {
        Ok(items) => (items, None),
        Err(refusal) => (&[][..], Some(refusal)),
    };
    let names = items.iter().map(name).collect();
    let line = Line { version: VERSION, pid: std::process::id(), items: names, refusal };
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::other("the names are too long"));
    }
    let fds: Vec<_> = items.iter().map(|item| item.fd.as_fd()).collect();
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
    let Line { pid, items: names, refusal, .. } = line;
    if names.len() != fds.len() {
        return Err(invalid(format!("{} descriptors came for {} names", fds.len(), names.len())));
    }
    let items = names.into_iter().zip(fds).map(|(Name { role, name }, fd)| Item { role, name, fd });
    Ok(Greeting { pid, items: refusal.map_or_else(|| Ok(items.collect()), Err) })
}
