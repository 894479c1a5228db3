//! One small file: read within a limit, or replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Largest file of a state directory, in bytes: 64 MiB.
pub(super) const FILE_BYTES_MAX: u64 = 64 << 20;

/// What a file is called while it is written.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// The whole file; none when there is no such file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    small(&bytes)?;
    Ok(Some(bytes))
}

/// Writes a new file beside the old one and puts it in its place: whoever is killed meanwhile leaves the one or the
/// other, whole. An error leaves the old one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    small(bytes)?;
    let new = unfinished(path);
    let replaced = write(&new, bytes).and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        // What is left of it is removed at the next start.
        let _ = fs::remove_file(&new);
    }
    replaced
}

/// How a file is written that nobody else may read, wherever it lies: a `user_config` may hold secrets.
pub(super) fn for_its_owner() -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true);
    options
}

/// Writes a file through to the disk.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = for_its_owner().create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn small(bytes: &[u8]) -> io::Result<()> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("more than {FILE_BYTES_MAX} bytes, the most that is kept")));
    }
    Ok(())
}
