//! State directories that cannot be used, as a Serve tells of them.

use std::process::{Command, Stdio};

use greenroom::{Serve, ServeError, ServeOptions, StateError};

use super::{Folder, config, number};

async fn refused(path: impl Into<std::path::PathBuf>) -> StateError {
    match Serve::start(ServeOptions::default().current_thread().state(path)).await {
        Err(ServeError::State(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn each_bad_directory_is_refused_at_the_start_and_left_as_it_is() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert_eq!(refused(&file).await.code(), "state_not_a_directory");
    assert_eq!(refused(file.join("state")).await.code(), "state_unusable");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    let serve = folder.serve().await;
    serve.create_backend("a", number(1), config()).await.unwrap();
    serve.shutdown().await.unwrap();
    let json = folder.state().join("state.json");
    let whole = std::fs::read_to_string(&json).unwrap();
    for (text, code) in [
        (whole[..whole.len() - 9].to_owned(), "state_damaged"),
        (whole.replace("\"num_replicas\": 1", "\"num_replicas\": \"one\""), "state_damaged"),
        (whole.replace("\"format\": 1", "\"format\": 2"), "state_from_the_future"),
    ] {
        std::fs::write(&json, &text).unwrap();
        assert_eq!(refused(folder.state()).await.code(), code);
        assert_eq!(std::fs::read_to_string(&json).unwrap(), text, "never overwritten");
    }
}

/// Where the process that fills its disk keeps its state; without it the test `filler` does nothing.
const DIRECTORY: &str = "GREENROOM_TEST_STATE_FULL";

/// The process whose files must not grow, when it is told where to work; otherwise nothing.
#[actix_web::test]
async fn filler() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let serve = Serve::start(ServeOptions::default().current_thread().state(directory)).await.unwrap();
    for made in 0..1000 {
        let before = serve.list_backends();
        assert_eq!(before.len(), made);
        if let Err(why) = serve.create_backend(format!("b{made}"), number(1), config()).await {
            assert_eq!((why.code(), serve.list_backends()), ("state_not_saved", before));
            println!("child: {made} and then {why}");
            // What makes it smaller still can be kept.
            serve.delete_backend("b0", false).await.unwrap();
            break;
        }
    }
    serve.shutdown().await.unwrap();
}

#[cfg(unix)]
#[actix_web::test]
async fn when_no_more_can_be_written_changes_are_refused_and_the_state_is_that_before() {
    let folder = Folder::new();
    // Without the limit's signal a write beyond it fails, as on a full disk.
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "state::bad::filler", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, folder.state())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let told = String::from_utf8(limited.stdout).unwrap();
    assert!(limited.status.success(), "{told}");
    let (_, told) = told.split_once("child: ").unwrap();
    let (made, why) = told.split_once(" and then ").unwrap();
    let made: usize = made.parse().unwrap();
    assert!(made > 1 && why.contains("could not be kept in the state directory"), "{told}");
    assert!(why.contains("File too large"), "{told}");
    let serve = folder.serve().await;
    let there: Vec<_> = serve.list_backends().into_iter().map(|(name, _)| name.to_string()).collect();
    let mut expected: Vec<_> = (1..made).map(|i| format!("b{i}")).collect();
    expected.sort();
    assert_eq!(there, expected);
    serve.shutdown().await.unwrap();
}
