//! `--initial-cluster` and how it must fit the member that starts.

use crate::url::{self, Url};

/// The founding members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// Name and peer URLs (sorted), ordered by name.
    pub members: Vec<(String, Vec<Url>)>,
}

impl InitialCluster {
    /// Reads `text` and checks it against the member `name`, which advertises `advertised`.
    /// URLs are compared as texts; host names are not resolved.
    ///
    /// # Errors
    /// The reason in etcd's words.
    pub fn parse(text: &str, name: &str, advertised: &[Url]) -> Result<InitialCluster, String> {
        let cluster = InitialCluster {
            members: parse_members(text)?,
        };
        cluster.check_local(name, advertised)?;
        Ok(cluster)
    }

    fn check_local(&self, name: &str, advertised: &[Url]) -> Result<(), String> {
        let Some((_, listed)) = self.members.iter().find(|(member, _)| member == name) else {
            return Err(format!(
                "couldn't find local name {name:?} in the initial cluster configuration"
            ));
        };
        let mut all: Vec<&Url> = self.members.iter().flat_map(|(_, urls)| urls).collect();
        all.sort_by_cached_key(|url| url.to_string());
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("initial cluster {} has duplicate url", self.text()));
        }
        let missing = |of: &[Url], from: &[Url], prefix: &str| {
            let lost = of.iter().filter(|url| !from.contains(url));
            lost.map(|url| format!("{prefix}{url}"))
                .collect::<Vec<_>>()
                .join(",")
        };
        let unannounced = missing(listed, advertised, &format!("{name}="));
        if !unannounced.is_empty() {
            return Err(format!(
                "--initial-cluster has {unannounced} but missing from \
                 --initial-advertise-peer-urls={} ({})",
                url::join(advertised),
                difference(advertised, listed),
            ));
        }
        let unlisted = missing(advertised, listed, "");
        if !unlisted.is_empty() {
            let own = advertised.iter().map(|url| format!("{name}={url}"));
            return Err(format!(
                "--initial-advertise-peer-urls has {unlisted} but missing from \
                 --initial-cluster={}",
                own.collect::<Vec<_>>().join(","),
            ));
        }
        Ok(())
    }

    /// `name=url,…`, as etcd prints it.
    #[must_use]
    pub fn text(&self) -> String {
        let pairs = self
            .members
            .iter()
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
        let mut pairs: Vec<String> = pairs.collect();
        pairs.sort();
        pairs.join(",")
    }
}

/// The parenthesis of etcd's message: how two lists of URLs differ.
fn difference(a: &[Url], b: &[Url]) -> String {
    let quoted = |urls: &[Url]| {
        urls.iter()
            .map(|url| format!("{:?}", url.to_string()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    if a.len() != b.len() {
        return format!("len([{}]) != len([{}])", quoted(a), quoted(b));
    }
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => format!("resolved urls: {:?} != {:?}", a.to_string(), b.to_string()),
        None => "urls are equal".into(),
    }
}

fn parse_members(text: &str) -> Result<Vec<(String, Vec<Url>)>, String> {
    let mut texts: Vec<(&str, Vec<&str>)> = Vec::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, url) = item.split_once('=').unwrap_or((item, ""));
        match texts.iter_mut().find(|(member, _)| *member == name) {
            Some((_, urls)) => urls.push(url),
            None => texts.push((name, vec![url])),
        }
    }
    texts.sort();
    let mut members = Vec::with_capacity(texts.len());
    for (name, urls) in texts {
        members.push((name.to_owned(), url::parse_sequence(urls)?));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_or_not() {
        let own = url::parse_list("http://h:1,http://h:2").unwrap();
        let check = |text: &str| InitialCluster::parse(text, "a", &own).map(|c| c.text());
        let whole = "a=http://h:1,a=http://h:2,b=http://g:1";
        assert_eq!(
            check("b=http://g:1,a=http://h:2,a=http://h:1").as_deref(),
            Ok(whole)
        );
        let cases = [
            (
                "",
                "couldn't find local name \"a\" in the initial cluster configuration",
            ),
            (
                "a=http://h:1,a=http://h:3",
                "--initial-cluster has a=http://h:3 but missing from \
                 --initial-advertise-peer-urls=http://h:1,http://h:2 (resolved urls: \
                 \"http://h:2\" != \"http://h:3\")",
            ),
            (
                "a=http://h:1",
                "--initial-advertise-peer-urls has http://h:2 but missing from \
                 --initial-cluster=a=http://h:1,a=http://h:2",
            ),
            (
                "a=http://h:1,b=http://h:1",
                "initial cluster a=http://h:1,b=http://h:1 has duplicate url",
            ),
            ("a=h", "URL scheme must be http, https, unix, or unixs: h"),
            ("a", "URL scheme must be http, https, unix, or unixs: "),
        ];
        for (text, want) in cases {
            assert_eq!(check(text), Err(want.to_owned()));
        }
    }
}
