//! `http/encoding.json`: Accept-Encoding → the coding that is sent.

use blobserve::http::Accepted;
use serde_json::Value;

fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

#[test]
fn codings_are_negotiated_as_others_negotiate_them() {
    let path = super::cases_dir().join("http/encoding.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let table: Value = serde_json::from_str(&text).expect("JSON");
    let cases = table["cases"].as_array().expect("cases");
    assert!(cases.len() > 50, "{} cases", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let accepted = Accepted::parse(case["accept"].as_str());
            let mut left = texts(&case["offered"]);
            let preferred = texts(&case["server_prefers"]);
            let mut order = Vec::new();
            while let Some(best) = accepted.best(&left, &preferred) {
                order.push(left.remove(best));
            }
            let best = order.first().copied();
            // The ranking: some cases name its first only, as `best` does.
            let wanted = texts(&case["order"]);
            let same = best == case["best"].as_str() && order.starts_with(&wanted);
            (!same).then(|| format!("{best:?}, {order:?}: {case}"))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
