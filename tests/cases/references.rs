//! `http/references.json`: the grammar of references, digests and hosts.

use blobserve::reference::grammar::{Parts, is_domain};
use blobserve::reference::{Reference, Repository, Version};
use serde_json::Value;

fn table() -> Vec<Value> {
    let path = super::cases_dir().join("http/references.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut table: Value = serde_json::from_str(&text).expect("JSON");
    match table["cases"].take() {
        Value::Array(cases) if !cases.is_empty() => cases,
        other => panic!("no cases: {other}"),
    }
}

/// What differs from the table, one line.
fn differs(case: &Value) -> Option<String> {
    let text = |key: &str| case[key].as_str();
    let input = text("input").expect("input");
    match text("kind").expect("kind") {
        "parse" | "reference" => strict(case, input),
        "domain" => (Some(is_domain(input)) != case["valid"].as_bool())
            .then(|| format!("domain {input}: {case}")),
        "normalized" => normalized(case, input),
        kind => Some(format!("{kind} {input}: this test does not know the kind")),
    }
}

fn strict(case: &Value, input: &str) -> Option<String> {
    let wanted = |key: &str| case[key].as_str().filter(|text| !text.is_empty());
    let parts = Parts::parse(input);
    // The table's Go program did not link SHA-512; to the OCI specification it is registered.
    let registered =
        wanted("err") == Some("digest.ErrDigestUnsupported") && input.contains("@sha512:");
    let (parts, error) = match (parts, wanted("err")) {
        (Err(_), Some(_)) => return None,
        (Ok(_), Some(_)) if registered => return None,
        (Ok(parts), None) => (parts, None),
        (Ok(parts), Some(error)) => (parts, Some(error)),
        (Err(error), None) => return Some(format!("{input}: {error}")),
    };
    let repository = match parts.domain {
        Some(domain) => format!("{domain}/{}", parts.path),
        None => parts.path.to_owned(),
    };
    let digest = parts.digest.map(|digest| digest.to_string());
    let as_wanted = error.is_none()
        && Some(repository.as_str()) == wanted("repository")
        && parts.domain == wanted("domain")
        && parts.tag == wanted("tag")
        && digest.as_deref() == wanted("digest");
    if !as_wanted {
        return Some(format!("{input}: {parts:?}, not {case}"));
    }
    key(&parts, input)
}

/// What is strictly a reference to a host's image is one to the product, which takes no other.
fn key(parts: &Parts<'_>, input: &str) -> Option<String> {
    let host = parts.domain.filter(|host| host.contains(['.', ':']))?;
    let versioned = parts.tag.is_some() || parts.digest.is_some();
    match Reference::parse(input) {
        Ok(reference) => {
            let same = reference.repository.host() == host
                && reference.repository.path() == parts.path
                && match &reference.version {
                    Version::Digest(digest) => Some(*digest) == parts.digest,
                    Version::Tag(tag) => Some(&**tag) == parts.tag && parts.digest.is_none(),
                };
            (!same || !versioned).then(|| format!("{input}: key {reference}"))
        }
        Err(error) => versioned.then(|| format!("{input}: {error}")),
    }
}

/// Docker fills in its own registry where a name has no host. The product asks for the host,
/// so that one step is done here; all that follows from it is the product's.
fn normalized(case: &Value, input: &str) -> Option<String> {
    let valid = case["valid"].as_bool().expect("valid");
    // Docker's command line takes a bare 64 digit name for an image's ID. No name with a host is.
    if input.len() == 64 && input.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return valid.then(|| format!("{input}: {case}"));
    }
    let has_host = input.split_once('/').is_some_and(|(first, _)| {
        let capitals = first.chars().any(char::is_uppercase);
        first.contains(['.', ':']) || first == "localhost" || capitals
    });
    let full = if has_host {
        input.to_owned()
    } else {
        format!("docker.io/{input}")
    };
    let name = match full.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => &full,
    };
    (Repository::parse(name).is_ok() != valid).then(|| format!("{input} as {name}: {case}"))
}

#[test]
fn references_digests_and_hosts_are_read_as_distribution_reads_them() {
    let table = table();
    let wrong: Vec<String> = table.iter().filter_map(differs).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        table.len(),
        wrong.join("\n")
    );
}
