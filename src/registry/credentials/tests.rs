use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

fn file(password: &str) -> String {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("u:{password}"));
    format!(r#"{{"auths":{{"r.example":{{"auth":"{auth}"}}}}}}"#)
}

async fn password(credentials: &Arc<Credentials>) -> Option<String> {
    // Beyond the second that a look is good for.
    credentials.lock().looked = None;
    match credentials
        .find("r.example", "a", false)
        .await
        .expect("no helper")
    {
        Some(Credential::Basic { password, .. }) => Some(password),
        _ => None,
    }
}

#[tokio::test]
async fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("config.json");
    let credentials = Arc::new(Credentials::new(Some(path.clone())));
    assert_eq!(password(&credentials).await, None, "no file yet");
    std::fs::write(&path, file("one")).expect("write");
    assert_eq!(password(&credentials).await.as_deref(), Some("one"));
    std::fs::write(&path, &file("other")[..20]).expect("write");
    assert_eq!(
        password(&credentials).await.as_deref(),
        Some("one"),
        "half written"
    );
    std::fs::write(&path, file("two")).expect("write");
    assert_eq!(password(&credentials).await.as_deref(), Some("two"));
    std::fs::remove_file(&path).expect("remove");
    assert_eq!(
        password(&credentials).await.as_deref(),
        Some("two"),
        "gone for a moment"
    );
}

#[tokio::test]
async fn the_swap_of_kubernetes_data_link_is_seen() {
    let dir = tempfile::tempdir().expect("dir");
    let at = |name: &str| dir.path().join(name);
    for (version, password) in [("..v1", "one"), ("..v2", "two")] {
        std::fs::create_dir(at(version)).expect("mkdir");
        std::fs::write(at(version).join("config.json"), file(password)).expect("write");
    }
    symlink("..v1", at("..data")).expect("link");
    symlink("..data/config.json", at("config.json")).expect("link");
    let credentials = Arc::new(Credentials::new(Some(at("config.json"))));
    assert_eq!(password(&credentials).await.as_deref(), Some("one"));
    symlink("..v2", at("..data_tmp")).expect("link");
    std::fs::rename(at("..data_tmp"), at("..data")).expect("swap");
    std::fs::remove_dir_all(at("..v1")).expect("remove");
    assert_eq!(password(&credentials).await.as_deref(), Some("two"));
}

#[tokio::test]
async fn a_look_is_good_for_a_second() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("config.json");
    std::fs::write(&path, file("one")).expect("write");
    let credentials = Arc::new(Credentials::new(Some(path.clone())));
    assert_eq!(password(&credentials).await.as_deref(), Some("one"));
    std::fs::write(&path, file("two-longer")).expect("write");
    let found = credentials
        .find("r.example", "a", false)
        .await
        .expect("found");
    assert_eq!(
        found.and_then(|c| c.basic()),
        Some("Basic dTpvbmU=".parse().expect("header"))
    );
    let found = credentials
        .find("r.example", "a", true)
        .await
        .expect("found");
    assert_ne!(
        found.and_then(|c| c.basic()),
        Some("Basic dTpvbmU=".parse().expect("header"))
    );
}

#[tokio::test]
async fn a_helper_is_asked_and_its_answer_remembered() {
    let dir = tempfile::tempdir().expect("dir");
    let count = dir.path().join("count");
    let script = dir.path().join("docker-credential-blobserve-test");
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nread -r server || true\necho x >> {}\ncase \"$server\" in\n\
             none) echo 'credentials not found in native keychain'; exit 1;;\n\
             broken) exit 2;;\n\
             token) echo '{{\"ServerURL\":\"t\",\"Username\":\"<token>\",\"Secret\":\"s\"}}';;\n\
             *) echo \"{{\\\"Username\\\":\\\"$1\\\",\\\"Secret\\\":\\\"$server\\\"}}\";;\nesac\n",
            count.display()
        ),
    )
    .expect("write");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let name = "blobserve-test";
    let mut helpers = helper::Helpers::default();
    helpers.directory = Some(dir.path().into());
    let ask = async |server: &str, fresh| helpers.ask(name, server, fresh).await;
    let hub = ask("docker.io", false).await;
    let again = ask("docker.io", false).await;
    let runs = std::fs::read_to_string(&count)
        .expect("count")
        .lines()
        .count();
    let fresh = ask("docker.io", true).await;
    let runs_fresh = std::fs::read_to_string(&count)
        .expect("count")
        .lines()
        .count();
    let (none, broken, token) = (
        ask("none", false).await,
        ask("broken", false).await,
        ask("token", false).await,
    );

    let expected = Credential::Basic {
        username: "get".into(),
        password: "https://index.docker.io/v1/".into(),
    };
    for answer in [hub, again, fresh] {
        assert_eq!(answer.expect("answer"), Some(expected.clone()));
    }
    assert_eq!((runs, runs_fresh), (1, 2));
    assert_eq!(none.expect("none"), None);
    assert!(broken.expect_err("broken").text.contains("failed"));
    assert_eq!(
        token.expect("token"),
        Some(Credential::Identity("s".into()))
    );
    let error = helpers.ask("../evil", "r", false).await.expect_err("path");
    assert!(error.text.contains("not a helper's name"));
}
