use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use super::shown::MAP_POSITION;
use crate::constants::WAIT_MAX;
use crate::map::{Format, Position};
use crate::serve::problem::Problem;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const YAML: [&str; 4] = ["application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml"];

/// `?format=`, else what `Accept` prefers, else JSON. A client that accepts neither gets JSON: it asked for the map,
/// and a body it can throw away tells more than 406.
pub(super) fn format(headers: &HeaderMap, uri: &Uri) -> Result<Format, Problem> {
    match parameter(uri, "format") {
        Some("json") => Ok(Format::Json),
        Some("yaml") => Ok(Format::Yaml),
        Some("nat-map") => Ok(Format::NatMap),
        Some(_) => Err(unknown_format("use format=json, format=yaml or format=nat-map")),
        None => Ok(accepted(headers)),
    }
}

/// The format asked for is none that this document has.
pub(super) fn unknown_format(remedy: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "UnknownFormat")
        .message("the format asked for does not exist")
        .remedy(remedy)
}

/// How long `?wait=` lets the answer be held: whole seconds, of which no more than [`WAIT_MAX`] count.
pub(super) fn wait(uri: &Uri) -> Result<Duration, Problem> {
    let Some(seconds) = parameter(uri, "wait") else { return Ok(Duration::ZERO) };
    let digits = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "InvalidWait")
            .message("wait is not a number of seconds")
            .remedy(format!("use whole seconds; no more than {} of them count", WAIT_MAX.as_secs())));
    }
    // more digits than a number has room for are more than the most
    Ok(seconds.parse().map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX))
}

/// The last value that the query gives `name`.
pub(super) fn parameter<'u>(uri: &'u Uri, name: &str) -> Option<&'u str> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back()
}

/// What the reader has been shown last, where it says so.
pub(super) fn position(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let asked = headers.get(MAP_POSITION).map(|asked| asked.to_str().unwrap_or_default());
    asked.map(|asked| parsed(&MAP_POSITION, asked)).transpose()
}

/// What `Last-Event-ID` says of the last event a reader had.
#[derive(Debug, Default)]
pub(super) struct LastEvent {
    pub(super) etag: Option<HeaderValue>,
    pub(super) position: Option<Position>,
}

/// An event's id: the document's `ETag`, and the `Map-Position` behind a space.
pub(super) fn last_event(headers: &HeaderMap) -> Result<LastEvent, Problem> {
    let Some(id) = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()) else {
        return Ok(LastEvent::default());
    };
    let (etag, position) = id.split_once(' ').map_or((id, None), |(etag, position)| (etag, Some(position)));
    let position = position.map(|position| parsed(&LAST_EVENT_ID, position)).transpose()?;
    Ok(LastEvent { etag: HeaderValue::from_str(etag).ok(), position })
}

fn parsed(header: &HeaderName, position: &str) -> Result<Position, Problem> {
    position.parse().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "InvalidPosition").message(format!("{header} is {error}"))
    })
}

/// Whether the reader takes gzip: its own weight decides, else that of `*`.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings =
        headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let (mut gzip, mut any) = (None, None);
    for coding in codings {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|p| p.strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0_f32));
        match name.as_str() {
            "gzip" | "x-gzip" => gzip = Some(!refused),
            "*" => any = Some(!refused),
            _ => {}
        }
    }
    gzip.or(any).unwrap_or(false)
}

fn accepted(headers: &HeaderMap) -> Format {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    // the most specific range decides per format (RFC 9110, 12.5.1)
    let (mut json, mut yaml) = ((0, 0.0), (0, 0.0));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|p| p.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
        let of = |exact: bool, family: bool| match media.as_str() {
            _ if exact => 3,
            _ if family => 2,
            "*/*" => 1,
            _ => 0,
        };
        let as_json = of(media == "application/json", media == "application/*");
        let as_yaml =
            of(YAML.contains(&media.as_str()), matches!(media.as_str(), "application/*" | "text/*"));
        for (best, found) in [(&mut json, as_json), (&mut yaml, as_yaml)] {
            if found > best.0 || (found > 0 && found == best.0 && weight > best.1) {
                *best = (found, weight);
            }
        }
    }
    if yaml.1 > json.1 { Format::Yaml } else { Format::Json }
}

/// Whether the client has a document with this tag already (`If-None-Match`, compared weakly as RFC 9110 has it).
pub(super) fn knows(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags =
        headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tags.map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn accept_chooses_yaml_only_where_it_is_preferred() {
        for (accept, yaml) in [
            ("*/*", false),
            ("", false),
            ("application/json", false),
            ("application/yaml", true),
            ("text/yaml", true),
            ("application/yaml, application/json", false),
            ("application/yaml, application/json;q=0.5", true),
            ("application/json;q=0.1, */*", true),
            ("text/html, application/*;q=0.9, */*;q=0.8", false),
            ("application/yaml;q=0.2, application/json; q=0.1", true),
            ("image/png", false),
        ] {
            let found = accepted(&headers(ACCEPT, accept));
            assert_eq!(found, if yaml { Format::Yaml } else { Format::Json }, "{accept}");
        }
    }

    #[test]
    fn the_query_goes_before_accept_and_unknown_formats_are_refused() {
        let yaml = headers(ACCEPT, "application/yaml");
        let asked = |uri: &str| format(&yaml, &uri.parse().unwrap());
        assert_eq!(asked("/v1/mapping?format=json").unwrap(), Format::Json);
        assert_eq!(asked("/v1/mapping?a=b&format=yaml").unwrap(), Format::Yaml);
        assert_eq!(asked("/v1/mapping?wait=1").unwrap(), Format::Yaml);
        assert_eq!(asked("/v1/mapping?format=nat-map").unwrap(), Format::NatMap);
        assert!(asked("/v1/mapping?format=xml").is_err());
    }

    #[test]
    fn waits_are_whole_seconds_and_bounded() {
        let asked = |uri: &str| wait(&uri.parse().unwrap()).map(|wait| wait.as_secs()).ok();
        assert_eq!(asked("/"), Some(0));
        assert_eq!(asked("/?wait=30"), Some(30));
        assert_eq!(asked("/?wait=100000"), Some(WAIT_MAX.as_secs()));
        assert_eq!(asked("/?wait=99999999999999999999999"), Some(WAIT_MAX.as_secs()));
        for bad in ["/?wait=", "/?wait=-1", "/?wait=+1", "/?wait=1.5", "/?wait=30s"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for (accept, takes) in [
            ("gzip", true),
            ("GZIP;q=0.5", true),
            ("deflate, gzip, br", true),
            ("*", true),
            ("*;q=0, gzip", true),
            ("gzip;q=0, *", false),
            ("gzip; q=0.0", false),
            ("br", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&headers(ACCEPT_ENCODING, accept)), takes, "{accept}");
        }
    }

    #[test]
    fn a_tag_is_known_in_a_list_weak_or_by_star() {
        let etag = HeaderValue::from_static("\"abc\"");
        for (tags, known) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\"", true),
            ("*", true),
            ("\"x\"", false),
            ("abc", false),
        ] {
            assert_eq!(knows(&headers(IF_NONE_MATCH, tags), &etag), known, "{tags}");
        }
    }
}
