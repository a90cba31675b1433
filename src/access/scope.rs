//! Scopes: what kinds of requests a token may make.

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scope {
    /// See jobs, their output, queues and the server.
    Read,
    /// See the values of environments and stdin.
    ReadSecrets,
    /// Submit jobs, and final ones again.
    Submit,
    /// Stop, pause, signal, change and delete jobs.
    Control,
    /// Write to jobs' stdin.
    Input,
    /// Set and delete queues.
    Queues,
    /// Everything.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::ReadSecrets,
        Self::Submit,
        Self::Control,
        Self::Input,
        Self::Queues,
        Self::Admin,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadSecrets => "read.secrets",
            Self::Submit => "submit",
            Self::Control => "control",
            Self::Input => "input",
            Self::Queues => "queues",
            Self::Admin => "admin",
        }
    }

    /// The scope with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// The names of all, for a message.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

/// A set of scopes. `admin` includes all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// No scope.
    pub const NONE: Self = Self(0);
    /// All scopes.
    pub const ALL: Self = Self(0x7f);

    /// These scopes.
    pub fn of(scopes: &[Scope]) -> Self {
        let bits = scopes.iter().map(|scope| match scope {
            Scope::Admin => Self::ALL.0,
            scope => 1 << *scope as u8,
        });
        Self(bits.fold(0, |all, bit| all | bit))
    }

    /// The scopes with these names.
    ///
    /// # Errors
    ///
    /// The first name that is none.
    pub fn read<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let scopes = names
            .into_iter()
            .map(|name| Scope::from_name(name).ok_or(name));
        Ok(Self::of(&scopes.collect::<Result<Vec<_>, _>>()?))
    }

    /// Whether this scope is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// The first of these scopes that is missing.
    pub fn missing(self, wanted: &[Scope]) -> Option<Scope> {
        wanted.iter().copied().find(|scope| !self.has(*scope))
    }

    /// Those that are in both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Their names; `admin` alone where it is among them.
    pub fn names(self) -> Vec<&'static str> {
        if self.has(Scope::Admin) {
            return vec![Scope::Admin.name()];
        }
        let present = Scope::ALL.into_iter().filter(|scope| self.has(*scope));
        present.map(Scope::name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_includes_all_and_only_admin_does() {
        for scope in Scope::ALL {
            assert!(Scopes::of(&[Scope::Admin]).has(scope));
            assert!(!Scopes::NONE.has(scope));
            let alone = Scopes::of(&[scope]);
            assert!(alone.has(scope));
            assert_eq!(alone.has(Scope::Admin), scope == Scope::Admin);
            assert_eq!(Scope::from_name(scope.name()), Some(scope));
        }
        assert_eq!(
            Scopes::of(&Scope::ALL[..6]).missing(&[Scope::Admin]),
            Some(Scope::Admin)
        );
        assert_eq!(Scopes::of(&Scope::ALL), Scopes::ALL);
    }

    #[test]
    fn an_intersection_widens_nothing() {
        for one in 0..=0x7f_u8 {
            for other in [
                Scopes::ALL,
                Scopes::NONE,
                Scopes::of(&[Scope::Read, Scope::Input]),
            ] {
                let both = Scopes(one).and(other);
                for scope in Scope::ALL {
                    assert_eq!(both.has(scope), Scopes(one).has(scope) && other.has(scope));
                }
            }
        }
    }

    #[test]
    fn names_are_read_and_told() {
        let read = Scopes::read(["submit", "read"]).expect("known");
        assert_eq!(read.names(), ["read", "submit"]);
        assert_eq!(Scopes::read(["read", "reads"]), Err("reads"));
        assert_eq!(Scopes::ALL.names(), ["admin"]);
    }
}
