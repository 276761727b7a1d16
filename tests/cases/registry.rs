//! What a hostile registry may hand over: `http/ssrf.json`, `http/www_authenticate.json`.

use blobserve::registry::{RealmRules, judge_realm, parse_challenges};
use serde_json::Value;

fn table(name: &str) -> Vec<Value> {
    let text = std::fs::read(super::cases_dir().join("http").join(name)).expect(name);
    let json: Value = serde_json::from_slice(&text).expect(name);
    json["cases"].as_array().expect("cases").clone()
}

#[test]
fn realms_of_hostile_registries_are_rejected() {
    let cases = table("ssrf.json");
    assert!(cases.len() >= 18, "{} cases", cases.len());
    for case in cases {
        assert_eq!(
            case["kind"], "realm",
            "a kind of case that this test does not know: {case}"
        );
        let rules = RealmRules {
            registry: case["registry"].as_str().expect("registry"),
            plain: case["insecure"].as_bool().expect("insecure"),
            token_hosts: &[],
            plain_hosts: &[],
        };
        let judged = judge_realm(case["url"].as_str().expect("url"), &rules);
        assert_eq!(
            judged.is_err(),
            case["reject"].as_bool().expect("reject"),
            "{case}: {judged:?}"
        );
    }
}

#[test]
fn challenges_are_parsed() {
    let cases = table("www_authenticate.json");
    assert!(cases.len() >= 6, "{} cases", cases.len());
    for case in cases {
        let challenges =
            parse_challenges(case["header"].as_str().expect("header")).expect("well formed");
        assert_eq!(challenges.len(), 1, "{case}");
        assert_eq!(
            challenges[0].scheme,
            case["scheme"].as_str().expect("scheme")
        );
        for (name, value) in case["params"].as_object().expect("params") {
            let found = challenges[0].params.get(name).map(String::as_str);
            assert_eq!(found, value.as_str(), "{name} of {case}");
        }
    }
}
