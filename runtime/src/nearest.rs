//! The name a user probably meant.

/// The candidate closest to `name`, if one is close enough to be a slip of the keyboard: at most one edit for every
/// three characters of the longer name, at least one; neighbouring letters swapped count as one edit, and letter
/// case as none. The first of several equally close ones.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = name.to_lowercase();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let known = candidate.to_lowercase();
            let edits = strsim::osa_distance(&typed, &known);
            let longer = typed.chars().count().max(known.chars().count());
            (edits <= (longer / 3).max(1)).then_some((edits, candidate))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["nextcloud", "web", "web2", "mail", "a"];

    #[test]
    fn slips_are_recognised() {
        for (typed, meant) in [
            ("nextclud", "nextcloud"),
            ("nextcluod", "nextcloud"),
            ("netxcluod", "nextcloud"),
            ("NextCloud", "nextcloud"),
            ("wbe", "web"),
            ("web22", "web2"),
            ("mial", "mail"),
            ("b", "a"),
        ] {
            assert_eq!(nearest(typed, NAMES), Some(meant), "{typed}");
        }
    }

    #[test]
    fn the_closest_wins_and_then_the_first() {
        assert_eq!(nearest("web2", NAMES), Some("web2"));
        assert_eq!(nearest("we", ["wed", "web"]), Some("wed"));
    }

    #[test]
    fn other_names_are_not_suggested() {
        for typed in ["postgres", "cloud", "mailserver", "xyz"] {
            assert_eq!(nearest(typed, NAMES), None, "{typed}");
        }
        assert_eq!(nearest("web", []), None);
    }
}
