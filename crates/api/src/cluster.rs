//! `--initial-cluster` and how it must fit the member that starts.

use crate::url::{self, Url};

/// The founding members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// Name and peer URLs (sorted), ordered by name.
    pub members: Vec<(String, Vec<Url>)>,
}

/// Whether two sets of URLs mean the same, or how they differ, in etcd's words.
pub type Same<'a> = &'a dyn Fn(&[String], &[String]) -> Result<(), String>;

impl InitialCluster {
    /// Reads `text`.
    ///
    /// # Errors
    /// A URL is none; the reason in etcd's words.
    pub fn parse(text: &str) -> Result<InitialCluster, String> {
        let members = parse_members(text)?;
        Ok(InitialCluster { members })
    }

    /// Checks that the member `name`, which advertises `advertised`, may found this cluster.
    ///
    /// # Errors
    /// The reason in etcd's words.
    pub fn check_founder(&self, name: &str, advertised: &[Url], same: Same) -> Result<(), String> {
        let listed = self.urls_of(name)?;
        check_advertised(name, listed, advertised, same)?;
        self.check_duplicates()
    }

    /// Checks that the member `name` may join this cluster, which knows its URLs already.
    ///
    /// # Errors
    /// The reason in etcd's words.
    pub fn check_joiner(&self, name: &str) -> Result<(), String> {
        self.urls_of(name)?;
        self.check_duplicates()
    }

    fn urls_of(&self, name: &str) -> Result<&[Url], String> {
        let found = self.members.iter().find(|(member, _)| member == name);
        let (_, urls) = found.ok_or_else(|| {
            format!("couldn't find local name {name:?} in the initial cluster configuration")
        })?;
        Ok(urls)
    }

    /// Whether a URL is listed twice.
    #[must_use]
    pub fn has_duplicates(&self) -> bool {
        let mut all: Vec<&Url> = self.members.iter().flat_map(|(_, urls)| urls).collect();
        all.sort_by_cached_key(|url| url.to_string());
        all.windows(2).any(|pair| pair[0] == pair[1])
    }

    fn check_duplicates(&self) -> Result<(), String> {
        match self.has_duplicates() {
            true => Err(format!("initial cluster {} has duplicate url", self.text())),
            false => Ok(()),
        }
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

fn check_advertised(
    name: &str,
    listed: &[Url],
    advertised: &[Url],
    same: Same,
) -> Result<(), String> {
    let mut advertised = advertised.to_vec();
    advertised.sort_by_cached_key(ToString::to_string);
    let Err(why) = same(&url::texts(&advertised), &url::texts(listed)) else {
        return Ok(());
    };
    let missing = |of: &[Url], from: &[Url], prefix: &str| {
        let lost = of.iter().filter(|url| !from.contains(url));
        let lost: Vec<String> = lost.map(|url| format!("{prefix}{url}")).collect();
        lost.join(",")
    };
    let own: Vec<String> = advertised
        .iter()
        .map(|url| format!("{name}={url}"))
        .collect();
    let (joined, own) = (url::join(&advertised), own.join(","));
    let unannounced = missing(listed, &advertised, &format!("{name}="));
    let unlisted = missing(&advertised, listed, "");
    Err(match (unannounced.is_empty(), unlisted.is_empty()) {
        (false, _) => format!(
            "--initial-cluster has {unannounced} but missing from \
             --initial-advertise-peer-urls={joined} ({why})"
        ),
        (true, false) => format!(
            "--initial-advertise-peer-urls has {unlisted} but missing from --initial-cluster={own}"
        ),
        (true, true) => {
            format!("failed to resolve {joined} to match --initial-cluster={own} ({why})")
        }
    })
}

/// Compares URLs as texts, in any order; host names are not resolved.
///
/// # Errors
/// How they differ, in etcd's words.
pub fn same_texts(a: &[String], b: &[String]) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("len({}) != len({})", go_list(a), go_list(b)));
    }
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    };
    match sorted(a).into_iter().zip(sorted(b)).find(|(a, b)| a != b) {
        Some((a, b)) => Err(format!("resolved urls: {a:?} != {b:?}")),
        None => Ok(()),
    }
}

/// A list of texts as Go prints it.
fn go_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
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
        let mut urls = urls
            .into_iter()
            .map(Url::parse)
            .collect::<Result<Vec<_>, _>>()?;
        urls.sort_by_cached_key(Url::to_string);
        members.push((name.to_owned(), urls));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_or_not() {
        let own = url::parse_list("http://h:1,http://h:2").unwrap();
        let check = |text: &str| {
            let cluster = InitialCluster::parse(text)?;
            cluster.check_founder("a", &own, &same_texts)?;
            Ok(cluster.text())
        };
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
                "a=http://h:1,a=http://h:2,b=http://h:1",
                "initial cluster a=http://h:1,a=http://h:2,b=http://h:1 has duplicate url",
            ),
            (
                "a=http://h:1,a=http://h:1",
                "--initial-advertise-peer-urls has http://h:2 but missing from \
                 --initial-cluster=a=http://h:1,a=http://h:2",
            ),
            ("a=h", "URL scheme must be http, https, unix, or unixs: h"),
            ("a", "URL scheme must be http, https, unix, or unixs: "),
        ];
        for (text, want) in cases {
            assert_eq!(check(text), Err(want.to_owned()));
        }
    }
}
