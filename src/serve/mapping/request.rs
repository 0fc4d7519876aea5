use http::header::{ACCEPT, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::map::Format;
use crate::serve::problem::Problem;

const YAML: [&str; 4] = ["application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml"];

/// `?format=`, else what `Accept` prefers, else JSON. A client that accepts neither gets JSON: it asked for the map,
/// and a body it can throw away tells more than 406.
pub(super) fn format(headers: &HeaderMap, uri: &Uri) -> Result<Format, Problem> {
    match named(uri) {
        Some("json") => Ok(Format::Json),
        Some("yaml") => Ok(Format::Yaml),
        Some(_) => Err(Problem::new(StatusCode::BAD_REQUEST, "UnknownFormat")
            .message("the format asked for does not exist")
            .remedy("use format=json or format=yaml")),
        None => Ok(accepted(headers)),
    }
}

/// What `?format=` names.
pub(super) fn named(uri: &Uri) -> Option<&str> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == "format").map(|(_, value)| value).next_back()
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
        assert!(asked("/v1/mapping?format=xml").is_err());
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
