//! The `greenroom` binary as a process: started in a folder of its own, ended in order, or killed.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::digits;

/// Longest time for a process to do what it is asked.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A folder of its own with a configuration, gone with the guard.
pub struct Folder(PathBuf);

impl Folder {
    /// `test` names the test, so that no two share a folder.
    pub fn new(test: &str, yaml: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("greenroom-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("serve.yaml"), yaml).unwrap();
        Self(folder)
    }

    /// The committed configuration of the digits on free ports, beside a copy of its model.
    pub fn digits(test: &str) -> Self {
        let yaml = std::fs::read_to_string(digits::folder().join("serve.yaml")).unwrap();
        let free = yaml.replace("port: 8000", "port: 0").replace("port: 8265", "port: 0");
        assert_eq!(free.matches("port: 0").count(), 2, "{yaml}");
        let folder = Self::new(test, &free);
        std::fs::copy(digits::model(), folder.0.join("digits.onnx")).unwrap();
        folder
    }

    pub fn yaml(&self) -> PathBuf {
        self.0.join("serve.yaml")
    }

    /// What lies in the folder under this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn greenroom(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub fn output(args: &[&str]) -> Output {
    let mut child = greenroom(args).spawn().unwrap();
    wait(&mut child);
    child.wait_with_output().unwrap()
}

fn wait(child: &mut Child) -> i32 {
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().expect("it ended by itself, not by a signal");
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "another process is looked at, on a thread without replicas"
        )]
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    panic!("the process did not end");
}

/// What it refused with: exit code 1, nothing on stdout but addresses, one message on stderr.
pub fn refusal(yaml: &Path) -> String {
    let output = output(&["run", yaml.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("ready"), "{error}");
    error
}

/// A server that says `ready`; killed with the guard.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
    pub data: Option<SocketAddr>,
    pub admin: SocketAddr,
}

impl Server {
    pub fn start(folder: &Folder) -> Self {
        Self::until(folder, "ready")
    }

    /// One that is still starting: it listens, and its backends are being made.
    pub fn starting(folder: &Folder) -> Self {
        Self::until(folder, "admin on ")
    }

    /// Reads what it tells up to the line that begins so.
    fn until(folder: &Folder, last: &str) -> Self {
        let mut child = greenroom(&["run", folder.yaml().to_str().unwrap()]).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (mut data, mut admin) = (None, None);
        loop {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let address = |at: &str| at.trim_end().strip_prefix("http://").unwrap().parse().unwrap();
            match line.trim_end() {
                "ready" => {}
                line if line.starts_with("serving on ") => data = Some(address(&line["serving on ".len()..])),
                line if line.starts_with("admin on ") => admin = Some(address(&line["admin on ".len()..])),
                other => {
                    let mut error = String::new();
                    let _ = child.kill();
                    let _ = stderr.read_to_string(&mut error);
                    panic!("{other:?} instead of `ready`: {error}");
                }
            }
            if line.starts_with(last) {
                break;
            }
        }
        Self { child, stdout, stderr, data, admin: admin.unwrap() }
    }

    pub fn data(&self) -> SocketAddr {
        self.data.unwrap()
    }

    /// How many of its threads have a name that begins so.
    #[cfg(target_os = "linux")]
    pub fn threads(&self, name: &str) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
        // One that has ended meanwhile has none.
        names.filter(|comm| comm.as_ref().is_ok_and(|comm| comm.starts_with(name))).count()
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    pub fn signal(&self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Ends it in order: exit code 0, no complaint.
    pub fn end(mut self) {
        self.terminate();
        self.ended();
    }

    pub fn ended(&mut self) {
        assert_eq!(self.rest(), "");
    }

    /// It ends in order because another process goes on with its sockets.
    pub fn replaced(mut self) {
        assert_eq!(self.rest(), "another process has taken over\n");
    }

    /// It ends in order, and may have become ready before.
    pub fn over(mut self) {
        let rest = self.rest();
        assert!(["", "ready\n"].contains(&rest.as_str()), "{rest}");
    }

    /// What it has told since, with exit code 0 and no complaint.
    fn rest(&mut self) -> String {
        let code = wait(&mut self.child);
        let (mut rest, mut error) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).unwrap();
        self.stderr.read_to_string(&mut error).unwrap();
        assert_eq!((code, error.as_str()), (0, ""));
        rest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
