//! `_redirects`: lines of `from [name=value…] to [status][!]`.
//!
//! `from` is a path; `:name` stands for one component, `/*` at its end for anything below, nothing too. A
//! slash at the end of a path makes no difference. `to` is a path of the same image, in which `:name` and
//! `:splat` stand for what was matched. The first rule that matches holds; without `!` a rule holds only
//! where there is no file.

use super::pattern::{Pattern, SPLAT, is_name};
use super::template::{Matched, Template, encoded};
use super::{Fault, Faults, lines};
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// Rules of one file. All that come before the one that holds are looked at, in microseconds.
const MOST_RULES: usize = 2_000;
/// Query parameters that one rule asks for.
const MOST_PARAMETERS: usize = 16;
/// The rules of one `_redirects`.
#[derive(Debug, Default)]
pub struct Redirects {
    /// Those that come before files.
    forced: Vec<Rule>,
    others: Vec<Rule>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Another URL: 301, 302, 303, 307 or 308.
    Redirect(u16),
    /// Another file under this URL.
    Rewrite,
    /// Another file under this URL, which is not found.
    NotFound,
}

/// Where a rule leads: never out of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What is done with it.
    pub action: Action,
    /// Decoded and cleaned, below the workdir, without leading or trailing slash.
    pub path: Vec<u8>,
    /// A slash stands at its end.
    pub directory: bool,
    /// For redirects, encoded, without `?`.
    pub query: Option<String>,
    /// For redirects, encoded, without `#`.
    pub fragment: Option<String>,
}

#[derive(Debug)]
struct Rule {
    from: Pattern,
    /// It ends with `/*`.
    below: bool,
    query: Vec<Parameter>,
    to: Template,
    action: Action,
}

#[derive(Debug)]
struct Parameter {
    name: Vec<u8>,
    /// None: any value, which is captured.
    value: Option<Vec<u8>>,
}

impl Redirects {
    /// Reads a file.
    pub fn parse(bytes: &[u8]) -> (Redirects, Vec<Fault>) {
        let mut faults = Faults::default();
        let mut redirects = Redirects::default();
        for (number, line) in lines(bytes, &mut faults) {
            if redirects.forced.len() + redirects.others.len() >= MOST_RULES {
                let more = "rules: this one and what follows is ignored";
                faults.push(number, format!("more than {MOST_RULES} {more}"));
                break;
            }
            match Rule::parse(line) {
                Ok((rule, true)) => redirects.forced.push(rule),
                Ok((rule, false)) => redirects.others.push(rule),
                Err(message) => faults.push(number, message),
            }
        }
        (redirects, faults.finish())
    }

    /// The rule that holds whatever files there are. `path` is cleaned, below the workdir; `directory`: a slash
    /// stood behind it; `query` is raw.
    pub fn forced(&self, path: &[u8], directory: bool, query: Option<&str>) -> Option<Destination> {
        lead(&self.forced, path, directory, query)
    }

    /// The rule that holds where there is no file. See [`Redirects::forced`].
    pub fn without_file(
        &self,
        path: &[u8],
        directory: bool,
        query: Option<&str>,
    ) -> Option<Destination> {
        lead(&self.others, path, directory, query)
    }
}

fn lead(rules: &[Rule], path: &[u8], directory: bool, query: Option<&str>) -> Option<Destination> {
    if rules.is_empty() {
        return None;
    }
    let mut rooted = Vec::with_capacity(path.len() + 1);
    if !path.is_empty() {
        rooted.push(b'/');
        rooted.extend_from_slice(path);
    }
    let mut destinations = rules.iter().filter_map(|rule| {
        let matched = rule.matches(&rooted, query)?;
        rule.destination(path, directory, query, &matched)
    });
    destinations.next()
}

impl Rule {
    /// With whether it is forced.
    fn parse(line: &str) -> Result<(Rule, bool), String> {
        let tokens = line.split_ascii_whitespace();
        let mut tokens = tokens.take_while(|token| !token.starts_with('#'));
        let from_text = tokens.next().unwrap_or_default();
        let (from, below) = from(from_text)?;
        let mut query = Vec::new();
        let mut names: Vec<Cow<'_, str>> = from.names().iter().map(Cow::from).collect();
        let to_text = loop {
            let Some(token) = tokens.next() else {
                return Err(format!(
                    "{from_text:?} leads nowhere, write a path behind it"
                ));
            };
            if token.starts_with('/') || token.contains("://") {
                break token;
            }
            let parameter = parameter(token, &mut names)?;
            query.push(parameter);
            if query.len() > MOST_PARAMETERS {
                return Err(format!("more than {MOST_PARAMETERS} query parameters"));
            }
        };
        let to = Template::parse(to_text, &names, below)?;
        let status = tokens.next().unwrap_or("301");
        let (status, forced) = match status.strip_suffix('!') {
            Some(status) => (status, true),
            None => (status, false),
        };
        let action = match status {
            "301" => Action::Redirect(301),
            "302" => Action::Redirect(302),
            "303" => Action::Redirect(303),
            "307" => Action::Redirect(307),
            "308" => Action::Redirect(308),
            "200" => Action::Rewrite,
            "404" => Action::NotFound,
            other => {
                return Err(format!(
                    "{other:?} is no status of a rule, there are 200, 301, 302, 303, 307, 308 and 404"
                ));
            }
        };
        if let Some(condition) = tokens.next() {
            return Err(format!(
                "{condition:?}: conditions are not known here, so the rule is left out"
            ));
        }
        let rule = Rule {
            from,
            below,
            query,
            to,
            action,
        };
        Ok((rule, forced))
    }

    fn matches<'a>(&self, rooted: &'a [u8], query: Option<&'a str>) -> Option<Matched<'a>> {
        let mut captured = Vec::new();
        let rest = self.from.strip(rooted, &mut captured)?;
        let splat = match rest.strip_prefix(b"/") {
            Some(splat) if self.below => splat,
            None if rest.is_empty() => rest,
            _ => return None,
        };
        let mut captured: Vec<Cow<'a, [u8]>> = captured.into_iter().map(Cow::from).collect();
        for parameter in &self.query {
            let mut values = parameters(query)
                .filter(|(name, _)| form_decoded(name) == parameter.name)
                .map(|(_, value)| form_decoded(value));
            let value = values.next()?;
            match &parameter.value {
                None => captured.push(value),
                Some(wanted) if *value == *wanted => {}
                Some(_) => return None,
            }
        }
        Some(Matched { captured, splat })
    }

    /// None: it would lead out of the image, or to where it came from.
    fn destination(
        &self,
        asked: &[u8],
        directory: bool,
        query: Option<&str>,
        matched: &Matched<'_>,
    ) -> Option<Destination> {
        let (path, to_directory) = self.to.path(matched, directory)?;
        let redirects = matches!(self.action, Action::Redirect(_));
        if redirects && path == asked && self.query.is_empty() {
            return None;
        }
        let query = self.to.query(matched).or_else(|| self.left_of(query));
        Some(Destination {
            action: self.action,
            path,
            directory: to_directory,
            query,
            fragment: self.to.fragment(matched),
        })
    }

    /// The query without the parameters that the rule has matched.
    fn left_of(&self, query: Option<&str>) -> Option<String> {
        if self.query.is_empty() {
            return query.map(encoded);
        }
        let matched = |name: &str| {
            let name = form_decoded(name);
            self.query.iter().any(|parameter| parameter.name == *name)
        };
        let left = query?.split('&').filter(|pair| {
            let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
            !matched(name)
        });
        let left = left.collect::<Vec<_>>().join("&");
        (!left.is_empty()).then(|| encoded(&left))
    }
}

fn from(text: &str) -> Result<(Pattern, bool), String> {
    if text.contains("://") {
        return Err(format!(
            "{text:?} names a host; rules are for paths, write what follows it"
        ));
    }
    if text.contains(['?', '#']) {
        return Err(format!(
            "{text:?} holds a query, write its parameters behind the path: /path name=:value /to"
        ));
    }
    let (path, below) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text.strip_suffix('/').unwrap_or(text), false),
    };
    if path.contains('*') {
        return Err(format!(
            "{text:?}: `*` stands alone at the end, write `/*` there"
        ));
    }
    if path.is_empty() && !text.starts_with('/') {
        return Err("no path to lead from".into());
    }
    Ok((Pattern::parse(path)?, below))
}

fn parameter(token: &str, names: &mut Vec<Cow<'_, str>>) -> Result<Parameter, String> {
    let (name, value) = match token.split_once('=') {
        Some((name, value)) if !name.is_empty() => (name, value),
        _ => {
            return Err(format!(
                "{token:?} is neither a path (start it with `/`) nor a query parameter (`name=value`)"
            ));
        }
    };
    let value = match value.strip_prefix(':') {
        None => Some(form_decoded(value).into_owned()),
        Some(placeholder) if !is_name(placeholder) || placeholder == SPLAT => {
            return Err(format!(
                "\":{placeholder}\" is not a placeholder, write `:` and a name of letters, digits and `_`"
            ));
        }
        Some(placeholder) if names.iter().any(|there| there == placeholder) => {
            return Err(format!(
                "`:{placeholder}` stands there twice, give each its own name"
            ));
        }
        Some(placeholder) => {
            names.push(Cow::Owned(placeholder.to_owned()));
            None
        }
    };
    Ok(Parameter {
        name: form_decoded(name).into_owned(),
        value,
    })
}

/// Name and value of each parameter, as they stand in the query.
fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes a name or a value of a query: `+` is a space.
fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode(spaced.as_bytes()).collect())
}
