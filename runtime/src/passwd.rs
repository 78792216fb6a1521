//! A user of a container, by the container's own passwd and group files (passwd(5), group(5)).

use std::path::PathBuf;

/// Whom a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Home directory.
    pub(crate) home: PathBuf,
}

/// Why there is no account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Neither name nor number of an entry.
    Missing,
    /// Its entry makes no sense.
    Entry,
}

/// Whether the name stands for the user that a container begins as anyway.
pub(crate) fn is_root(user: &str) -> bool {
    matches!(user, "root" | "0")
}

/// Looks a user up by name, else by number, as `getent passwd` does. A number without an entry is itself, in the group
/// of the same number, with `/` for a home.
pub(crate) fn lookup(passwd: &str, group: &str, user: &str) -> Result<Account, Fault> {
    let fields = |line: &'_ str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry_by = |index: usize| {
        passwd
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(fields)
            .find(|entry| entry.get(index).is_some_and(|field| field == user))
    };
    let number = id(user);
    let Some(entry) = entry_by(0).or_else(|| number.and_then(|_| entry_by(2))) else {
        let uid = number.ok_or(Fault::Missing)?;
        return Ok(Account { uid, gid: uid, groups: Vec::new(), home: "/".into() });
    };
    let [name, _, uid, gid, _, home, ..] = entry.as_slice() else { return Err(Fault::Entry) };
    let (Some(uid), Some(gid)) = (id(uid), id(gid)) else { return Err(Fault::Entry) };
    // A home that is no absolute path would be taken relative to wherever the program starts.
    let home = if home.starts_with('/') { home.into() } else { PathBuf::from("/") };
    Ok(Account { uid, gid, groups: memberships(group, name), home })
}

/// The groups that list the user as a member.
fn memberships(group: &str, name: &str) -> Vec<u32> {
    let mut groups: Vec<u32> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(4, ':').skip(2);
            let gid = id(fields.next()?)?;
            fields.next()?.split(',').any(|member| member.trim() == name).then_some(gid)
        })
        .collect();
    groups.dedup();
    groups
}

/// An id: decimal digits only, and neither of the two values that the kernel takes for "none".
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = text.parse().ok().filter(|_| digits)?;
    (number != u32::MAX && number != u32::from(u16::MAX)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\n# comment\nbroken:x:1\nada:x:1000:100:Ada, Countess:/home/ada:/bin/sh\n\
        4000:x:7:7::/n:/bin/sh\nbad:x:70000000000:1::/:\nrelative:x:8:8::home:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nwheel:x:10:bob,ada\naudio:x:11:adam\nusers:x:100:\nvideo:x:12:ada\nnone\n";

    #[test]
    fn a_user_has_ids_groups_and_a_home() {
        let ada = Account { uid: 1000, gid: 100, groups: vec![10, 12], home: "/home/ada".into() };
        assert_eq!(lookup(PASSWD, GROUP, "ada"), Ok(ada.clone()));
        assert_eq!(lookup(PASSWD, GROUP, "1000"), Ok(ada));
    }

    #[test]
    fn a_number_is_first_a_name_then_an_id_then_itself() {
        assert_eq!(lookup(PASSWD, GROUP, "4000").unwrap().uid, 7);
        let lone = Account { uid: 5000, gid: 5000, groups: vec![], home: "/".into() };
        assert_eq!(lookup(PASSWD, GROUP, "5000"), Ok(lone.clone()));
        assert_eq!(lookup("", "", "5000"), Ok(lone));
    }

    #[test]
    fn what_is_no_user_is_told_apart_from_a_broken_entry() {
        for missing in ["eve", "", "#", "# comment", "-1", "+5", "4294967295", "65535", "0x10"] {
            assert_eq!(lookup(PASSWD, GROUP, missing), Err(Fault::Missing), "{missing}");
        }
        for broken in ["broken", "bad"] {
            assert_eq!(lookup(PASSWD, GROUP, broken), Err(Fault::Entry), "{broken}");
        }
        assert_eq!(lookup(PASSWD, GROUP, "relative").unwrap().home, PathBuf::from("/"));
    }
}
