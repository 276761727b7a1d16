//! Which entry of an index is ours: OCI image specification, image-index.md, "platform".

use super::{IndexEntry, Platform, is_index};

/// What an index has for a platform.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// This entry.
    Entry(&'a IndexEntry),
    /// Nothing that says the platform, but the only image that there is.
    Only(&'a IndexEntry),
    /// Nothing of its own, but indexes that say no platform and may hold it, in their order.
    Within(Vec<&'a IndexEntry>),
    /// Nothing: the platforms that there are.
    None(Vec<String>),
}

/// Chooses the entry for `platform`; with no such entry, the indexes in it; else the only entry that
/// is not an attestation. Of several that fit the first best variant wins:
/// `arm/v7` also takes v6 and v5, `amd64/v3` also v2 and v1; then the `os.version` that is nearest.
pub fn choose<'a>(index: &'a [IndexEntry], platform: &Platform) -> Choice<'a> {
    let images = || index.iter().filter(|entry| !entry.attestation);
    let mut best: Option<((u32, u64), &IndexEntry)> = None;
    for entry in images() {
        let fit = entry.platform.as_ref().and_then(|has| fit(has, platform));
        if let Some(fit) = fit
            && best.is_none_or(|(other, _)| fit > other)
        {
            best = Some((fit, entry));
        }
    }
    if let Some((_, entry)) = best {
        return Choice::Entry(entry);
    }
    let within: Vec<&IndexEntry> = images()
        .filter(|entry| entry.platform.is_none() && is_index(&entry.descriptor.media_type))
        .collect();
    if !within.is_empty() {
        return Choice::Within(within);
    }
    let mut rest = images();
    if let (Some(only), None) = (rest.next(), rest.next()) {
        return Choice::Only(only);
    }
    let mut names: Vec<String> = images()
        .map(|entry| match &entry.platform {
            Some(platform) => platform.to_string(),
            None => "(no platform)".to_owned(),
        })
        .collect();
    names.sort();
    names.dedup();
    Choice::None(names)
}

/// How near an `os.version` is to the one that is wanted: None is another build, which does not
/// run (Windows process isolation). An image or a wish that says none fits all.
fn version_fit(has: Option<&str>, wanted: Option<&str>) -> Option<u64> {
    let (Some(has), Some(wanted)) = (has, wanted) else {
        return Some(0);
    };
    if has == wanted {
        return Some(u64::MAX);
    }
    let (mut has, mut wanted) = (has.split('.'), wanted.split('.'));
    for _ in 0..3 {
        if has.next()? != wanted.next()? {
            return None;
        }
    }
    // Of the same build the latest revision.
    let revision = has.next().and_then(|text| text.parse::<u64>().ok());
    Some(1 + revision.unwrap_or(0).min(u64::MAX - 2))
}

/// How well `has` runs on `wanted`: None is not at all, more is better.
fn fit(has: &Platform, wanted: &Platform) -> Option<(u32, u64)> {
    let version = version_fit(has.os_version.as_deref(), wanted.os_version.as_deref())?;
    Some((machine_fit(has, wanted)?, version))
}

/// The part of [`fit`] that is not the version of the operating system.
fn machine_fit(has: &Platform, wanted: &Platform) -> Option<u32> {
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
