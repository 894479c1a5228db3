//! State directories that cannot be used, as a Serve tells of them.

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
