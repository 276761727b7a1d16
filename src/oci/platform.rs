//! Which entry of an index is ours: OCI image specification, image-index.md, "platform".

use super::{IndexEntry, Platform};

/// Chooses the entry for `platform`; with no such entry, the only entry that is not an
/// attestation; else the platforms that there are. Of several that fit the first best
/// variant wins: `arm/v7` also takes v6 and v5, `amd64/v3` also v2 and v1.
pub fn choose<'a>(
    index: &'a [IndexEntry],
    platform: &Platform,
) -> Result<&'a IndexEntry, Vec<String>> {
    let images = || index.iter().filter(|entry| !entry.attestation);
    let mut best: Option<(u32, &IndexEntry)> = None;
    for entry in images() {
        let fit = entry.platform.as_ref().and_then(|has| fit(has, platform));
        if let Some(fit) = fit
            && best.is_none_or(|(other, _)| fit > other)
        {
            best = Some((fit, entry));
        }
    }
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    let mut rest = images();
    if let (Some(only), None) = (rest.next(), rest.next()) {
        return Ok(only);
    }
    let mut names: Vec<String> = images()
        .map(|entry| match &entry.platform {
            Some(platform) => platform.to_string(),
            None => "(no platform)".to_owned(),
        })
        .collect();
    names.sort();
    names.dedup();
    Err(names)
}

/// How well `has` runs on `wanted`: None is not at all, more is better.
fn fit(has: &Platform, wanted: &Platform) -> Option<u32> {
    let (architecture, variant) = normal(has);
    let (wanted_architecture, wanted_variant) = normal(wanted);
    if !has.os.eq_ignore_ascii_case(&wanted.os) || architecture != wanted_architecture {
        return None;
    }
    if variant == wanted_variant {
        return Some(u32::MAX);
    }
    // Older variants of these two run on newer machines; others are unrelated names.
    let number = |variant: &str| variant.strip_prefix('v')?.parse::<u32>().ok();
    match (
        architecture.as_str(),
        number(&variant),
        number(&wanted_variant),
    ) {
        ("arm" | "amd64", Some(has), Some(wanted)) if has < wanted => Some(has),
        _ => None,
    }
}

/// Architecture and variant with synonyms and defaults resolved.
fn normal(platform: &Platform) -> (String, String) {
    let architecture = platform.architecture.to_ascii_lowercase();
    let variant = platform.variant.as_deref().unwrap_or_default();
    let (architecture, default) = match architecture.as_str() {
        "x86_64" | "x86-64" | "amd64" => ("amd64", "v1"),
        "aarch64" | "arm64" => ("arm64", "v8"),
        "armhf" | "arm" => ("arm", "v7"),
        "armel" => ("arm", "v6"),
        other => (other, ""),
    };
    let variant = match variant {
        "" => default.to_owned(),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => format!("v{digits}"),
        other => other.to_ascii_lowercase(),
    };
    (architecture.to_owned(), variant)
}
