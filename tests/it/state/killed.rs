//! A process that is killed at random moments, again and again, in the middle of changes: what was acknowledged is
//! there after each restart, and nothing is half there.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use greenroom::{BackendUpdate, Endpoint, Serve, ServeOptions, ShadowRule};
use rand::RngExt;
use serde_json::{Value, json};

use super::{Folder, config, number};

/// Where the process that is killed keeps its state; without it the test `child` does nothing.
const DIRECTORY: &str = "GREENROOM_TEST_STATE";
const CHANGES: u64 = 500;

/// What is wanted after so many changes.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Wanted {
    /// Replicas and queue of each backend.
    backends: BTreeMap<String, (u32, usize)>,
    /// Traffic and shadow rule of each endpoint.
    endpoints: BTreeMap<String, (Value, Option<f64>)>,
}

impl Wanted {
    /// Before the first change.
    fn first() -> Self {
        let backends = ["a", "b", "c"].map(|name| (name.to_owned(), (1, 1000)));
        let endpoints = [("e".to_owned(), (json!({"a": 1.0}), None))];
        Self { backends: backends.into(), endpoints: endpoints.into() }
    }

    fn after(changes: u64) -> Self {
        let mut wanted = Self::first();
        (0..changes).for_each(|n| wanted.change(n));
        wanted
    }

    /// What change number `n` does.
    fn change(&mut self, n: u64) {
        let (turn, size) = (n / 6, n as usize);
        let backend = |name: &str| name.to_owned();
        match n % 6 {
            0 => self.backends.get_mut("a").unwrap().0 = (turn % 3) as u32,
            1 => {
                let (a, b) = weights(n);
                self.endpoints.get_mut("e").unwrap().0 = json!({"a": a, "b": b});
            }
            // Both or none.
            2 => *self.backends.get_mut("b").unwrap() = ((turn % 4) as u32, size),
            3 if turn.is_multiple_of(2) => drop(self.backends.insert(backend("t"), (2, size))),
            3 => drop(self.backends.remove("t")),
            4 => {
                let share = (n % 11) as f64 / 10.0;
                self.endpoints.get_mut("e").unwrap().1 = (share > 0.0).then_some(share);
            }
            _ if turn.is_multiple_of(2) => {
                self.endpoints.insert(backend("t"), (json!({"a": 0.5, "b": 0.5}), Some(0.25)));
            }
            _ => drop(self.endpoints.remove("t")),
        }
    }

    /// What a Serve wants.
    fn of(serve: &Serve) -> Self {
        let backends = serve.list_backends().into_iter();
        let backends = backends
            .map(|(name, config)| (name.to_string(), (config.num_replicas, config.max_queued_queries)));
        let endpoints = serve.list_endpoints().into_iter().map(|endpoint| {
            let traffic = serde_json::to_value(&endpoint.traffic).unwrap();
            (endpoint.name.to_string(), (traffic, endpoint.shadow.first().map(|shadow| shadow.proportion)))
        });
        Self { backends: backends.collect(), endpoints: endpoints.collect() }
    }
}

fn weights(n: u64) -> (f64, f64) {
    let a = (n % 101) as f64 / 101.0;
    (a, 1.0 - a)
}

/// Makes change number `n`.
async fn make(serve: &Serve, n: u64) {
    let (turn, size) = (n / 6, n as usize);
    let rule = |share| ShadowRule::new("c", share).unwrap();
    let made = match n % 6 {
        0 => serve.update_backend_config("a", BackendUpdate::default().num_replicas((turn % 3) as u32)).await,
        1 => {
            let (a, b) = weights(n);
            serve.set_traffic("e", [("a", a), ("b", b)]).await
        }
        2 => {
            let update = BackendUpdate::default().num_replicas((turn % 4) as u32).max_queued_queries(size);
            serve.update_backend_config("b", update).await
        }
        3 if turn.is_multiple_of(2) => {
            serve.create_backend("t", number(9), config().num_replicas(2).max_queued_queries(size)).await
        }
        3 => serve.delete_backend("t", false).await,
        4 => serve.set_shadow("e", rule((n % 11) as f64 / 10.0)).await,
        _ if turn.is_multiple_of(2) => {
            let split = greenroom::TrafficPolicy::new([("a", 0.5), ("b", 0.5)]).unwrap();
            serve.create_endpoint("t", Endpoint::split(split).shadow(rule(0.25))).await
        }
        _ => serve.delete_endpoint("t").await,
    };
    made.unwrap_or_else(|why| panic!("change {n}: {why}"));
}

fn tell(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {what}").unwrap();
    out.flush().unwrap();
}

/// The process that is killed, when it is told where to work; otherwise nothing.
#[actix_web::test]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let options = || ServeOptions::default().current_thread();
    let serve = Serve::start(options().state(directory)).await.unwrap();
    let restored = Wanted::of(&serve);
    tell(&serde_json::to_string(&restored).unwrap());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let Ok(first) = line.trim().parse::<u64>() else { return };
    // As any program at its start: it does not know whether there is anything yet.
    for (name, n) in [("a", 1), ("b", 2), ("c", 3)] {
        serve.create_backend(name, number(n), config()).await.unwrap();
    }
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    if restored.backends.contains_key("t") {
        // Its own options of then, which the state holds.
        let same = config().num_replicas(2).max_queued_queries(restored.backends["t"].1);
        serve.create_backend("t", number(9), same).await.unwrap();
    }
    tell(&serde_json::to_string(&Wanted::of(&serve)).unwrap());
    for n in first..CHANGES {
        make(&serve, n).await;
        tell(&format!("made {n}"));
    }
    serve.shutdown().await.unwrap();
}

/// The process that is killed, from outside.
struct Killable {
    child: Child,
    told: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Killable {
    fn start(directory: &Path) -> Self {
        let mut child = command().env(DIRECTORY, directory).stdin(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, told }
    }

    /// The next thing that it tells, until it has ended.
    fn next(&mut self) -> Option<String> {
        let mut lines = self.told.by_ref().map_while(Result::ok);
        lines.find_map(|line| line.split_once("child: ").map(|(_, told)| told.to_owned()))
    }

    fn wanted(&mut self) -> Wanted {
        serde_json::from_str(&self.next().expect("it tells what is wanted")).unwrap()
    }

    /// It goes on with change number `n`.
    fn go_on(&mut self, n: u64) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{n}").unwrap();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This very test binary, which then only runs `child`.
fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "state::killed::child", "--nocapture", "--test-threads=1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

#[test]
fn five_hundred_changes_survive_kills_at_random_moments() {
    let folder = Folder::new();
    let mut rng = rand::rng();
    // Changes that were acknowledged.
    let (mut made, mut kills, mut ahead) = (0, 0, 0);
    let begun = Instant::now();
    while made < CHANGES {
        let mut process = Killable::start(&folder.state());
        let restored = process.wanted();
        if made > 0 || folder.state().join("state.json").exists() && !restored.endpoints.is_empty() {
            let next = Wanted::after(made + 1);
            assert!(
                restored == Wanted::after(made) || restored == next,
                "after {made} acknowledged changes there is {restored:?}, neither {:?} nor {next:?}",
                Wanted::after(made)
            );
            if restored == next && restored != Wanted::after(made) {
                (made, ahead) = (made + 1, ahead + 1);
            }
        }
        process.go_on(made);
        let expected = Wanted::after(made);
        assert_eq!(process.wanted(), expected, "what the program gives again changes nothing");
        let until = made + rng.random_range(1..=40);
        while made < until
            && let Some(told) = process.next()
        {
            assert_eq!(told, format!("made {made}"));
            made += 1;
        }
        let moment = Instant::now() + Duration::from_micros(rng.random_range(0..15_000));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        process.child.kill().unwrap();
        kills += 1;
        while let Some(told) = process.next() {
            assert_eq!(told, format!("made {made}"));
            made += 1;
        }
    }
    let mut process = Killable::start(&folder.state());
    assert_eq!(process.wanted(), Wanted::after(CHANGES));
    println!(
        "{kills} kills in {CHANGES} changes, {ahead} of them in the middle of one, in {:?}",
        begun.elapsed()
    );
}
