//! Names of environment variables: what a rule lists, and which names a pattern never covers.

use super::words::WordPattern;

/// Variables by which a loader, a shell, an interpreter or a tool is told to load or run something
/// else, or where to find its programs and its settings. A star at the end stands for any rest.
const START_UP: &[&str] = &[
    // The loader and the C library.
    "LD_*",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_*",
    "MUSL_*",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_*",
    "RES_OPTIONS",
    "TMPDIR",
    "TZDIR",
    // Where programs and settings are found.
    "PATH",
    "HOME",
    "SHELL",
    "USER",
    "LOGNAME",
    "XDG_*",
    "CC_EXECUTOR_*",
    // Shells.
    "ENV",
    "BASH*",
    "SHELLOPTS",
    "PS0",
    "PS1",
    "PS2",
    "PS3",
    "PS4",
    "PROMPT*",
    "IFS",
    "CDPATH",
    "FPATH",
    "GLOBIGNORE",
    "FCEDIT",
    "HIST*",
    "INPUTRC",
    "MAILPATH",
    "ZDOTDIR",
    "KSH*",
    "FISH*",
    "fish_*",
    "module_path",
    "TIMEFMT",
    "NULLCMD",
    "READNULLCMD",
    "WORDCHARS",
    "SUDO_*",
    // Interpreters and their package managers.
    "PYTHON*",
    "PIP_*",
    "PIPENV_*",
    "POETRY_*",
    "UV_*",
    "VIRTUAL_ENV",
    "CONDA*",
    "PERL*",
    "RUBY*",
    "GEM*",
    "BUNDLE_*",
    "RAKE*",
    "NODE_*",
    "npm_*",
    "NPM_*",
    "YARN_*",
    "COREPACK_*",
    "BUN_*",
    "DENO_*",
    "TS_NODE_*",
    "LUA*",
    "PHP*",
    "PHPRC",
    "TCL*",
    "R_*",
    "JULIA_*",
    "GUILE_*",
    "ERL_*",
    "ELIXIR_*",
    "MIX_*",
    "AWK*",
    "JAVA*",
    "_JAVA_OPTIONS",
    "JDK_*",
    "CLASSPATH",
    "MAVEN_*",
    "MVN_*",
    "GRADLE_*",
    "SBT_*",
    "KOTLIN_*",
    "DOTNET_*",
    "CORECLR_*",
    "COR_*",
    "COMPlus_*",
    "MONO_*",
    "GHC*",
    "CABAL_*",
    "STACK_*",
    "OCAML*",
    "OPAM*",
    // Builds.
    "MAKE*",
    "MFLAGS",
    "GNUMAKEFLAGS",
    "CMAKE_*",
    "NINJA_*",
    "MESON*",
    "AUTO*",
    "ACLOCAL*",
    "M4*",
    "CC",
    "CXX",
    "CPP",
    "AR",
    "AS",
    "LD",
    "RANLIB",
    "STRIP",
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "LDFLAGS",
    "LIBRARY_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "COMPILER_PATH",
    "GCC_*",
    "CCACHE_*",
    "DISTCC_*",
    "PKG_CONFIG*",
    "CARGO*",
    "RUST*",
    "GO*",
    "CGO_*",
    "BAZEL*",
    "BUILDKIT_*",
    "CONFIG_SHELL",
    "CONFIG_SITE",
    // Tools that run what a variable says.
    "GIT_*",
    "GITHUB_*",
    "HG*",
    "SVN_*",
    "CVS*",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "BROWSER",
    "MANPAGER",
    "MANOPT",
    "MANPATH",
    "MANROFFOPT",
    "LESS*",
    "MORE",
    "LV",
    "BAT_*",
    "DELTA_*",
    "SYSTEMD_*",
    "VIM*",
    "EXINIT",
    "NVIM_*",
    "MYVIMRC",
    "EMACS*",
    "TERMINFO*",
    "TERMCAP",
    "TERMPATH",
    "SSH_*",
    "RSYNC_*",
    "SCP_*",
    "TAR_OPTIONS",
    "GZIP",
    "BZIP2",
    "XZ_*",
    "ZSTD_*",
    "UNZIP*",
    "ZIPOPT",
    "GREP_*",
    "FZF_*",
    "RIPGREP_*",
    "CURL_*",
    "WGETRC",
    "SYSTEM_WGETRC",
    "FTP_*",
    "OPENSSL_*",
    "SSL_*",
    "SSLKEYLOGFILE",
    "GNUPGHOME",
    "GPG_*",
    "KRB5*",
    "PGSYSCONFDIR",
    "PGSERVICE*",
    "PSQL*",
    "PSQLRC",
    "MYSQL_*",
    "SQLITE_*",
    "ORACLE_HOME",
    "ODBC*",
    "LIBPATH",
    "SHLIB_PATH",
    "DYLD_*",
    "GTK*",
    "GDK_*",
    "GIO_*",
    "GST_*",
    "QT_*",
    "QML*",
    "KDE*",
    "MAGICK_*",
    "GS_*",
    "FONTCONFIG_*",
    "DBUS_*",
    "DISPLAY",
    "XAUTHORITY",
    "WAYLAND_*",
    "TMUX*",
    "SCREENRC",
    "SCREENDIR",
    "DOCKER_*",
    "CONTAINER*",
    "KUBE*",
    "HELM_*",
    "TF_*",
    "TERRAFORM_*",
    "ANSIBLE_*",
    "VAGRANT_*",
    "PACKER_*",
    "CHEF_*",
    "PUPPET_*",
    "NIX_*",
    "GUIX_*",
    "APT_*",
    "DPKG_*",
    "DEB*",
    "RPM_*",
    "SNAP*",
    "AWS_*",
    "AZURE_*",
    "GOOGLE_*",
    "CLOUDSDK_*",
    "JUPYTER_*",
    "IPYTHON*",
    "MPL*",
    "MATPLOTLIB*",
    "PDSH_*",
    "PARALLEL*",
    "EXPECT*",
    "GDB*",
    "LLDB_*",
    "PERF_*",
    "OPENCL_*",
    "OCL_*",
    "CUDA_*",
    "VK_*",
    "LIBGL_*",
    "MESA_*",
    "EGL_*",
    "OMPI_*",
    "PMIX_*",
    "I_MPI_*",
    "PROJ_*",
    "GDAL_*",
    "LV2_PATH",
    "LADSPA_PATH",
    "CUPS_*",
    "TEX*",
    "LATEX*",
    "BIBINPUTS",
    "INFOPATH",
    "ASPELL_*",
    "_*",
];

/// Whether a pattern never covers this name.
pub fn is_start_up(name: &str) -> bool {
    START_UP.iter().any(|known| match known.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == *known,
    })
}

/// The names that a rule lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameSet(pub Vec<WordPattern>);

impl NameSet {
    /// Whether a rule that allows these names allows this one: a pattern does not cover variables
    /// that say what else is run.
    pub fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            WordPattern::Is(this) => this == name,
            WordPattern::Begins(_) => pattern.matches(name) && !is_start_up(name),
        })
    }

    /// Whether a rule that denies these names denies this one.
    pub fn names(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// Why a job with these variables is not allowed.
    pub fn first_failure<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let refused = names.into_iter().find(|name| !self.allows(name))?;
        let name = super::words::shown(refused);
        Some(match is_start_up(refused) {
            true => format!(
                "the variable {name} can change what is run: the rule would have to name it in env, without a star"
            ),
            false => format!(
                "the variable {name} is not in the rule's env; leave it out (of `run` and `submit` the option \
                 --clean-env does), or add it to the rule"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> NameSet {
        let read = |name: &&str| WordPattern::read(name).expect("a pattern");
        NameSet(names.iter().map(read).collect())
    }

    #[test]
    fn a_pattern_never_covers_what_changes_the_program() {
        let all = set(&["*"]);
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "BASH_ENV",
            "BASH_FUNC_ls%%",
            "ENV",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "RUBYOPT",
            "NODE_OPTIONS",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
            "MAKEFLAGS",
            "PATH",
            "HOME",
            "PAGER",
            "LESSOPEN",
            "GCONV_PATH",
            "JAVA_TOOL_OPTIONS",
            "_JAVA_OPTIONS",
            "PROMPT_COMMAND",
            "IFS",
            "PS4",
            "SHELLOPTS",
        ] {
            assert!(is_start_up(name), "{name}");
            assert!(!all.allows(name), "{name}");
            assert!(all.names(name), "{name}");
            assert!(set(&[name]).allows(name), "{name} by its name");
        }
        for name in ["LANG", "LC_ALL", "TERM", "CI", "MY_TOKEN", "TZ", "NO_COLOR"] {
            assert!(all.allows(name), "{name}");
        }
        assert!(!set(&["LD_*"]).allows("LD_PRELOAD"));
    }

    #[test]
    fn the_first_name_that_is_not_listed_is_named() {
        let listed = set(&["LANG", "LC_*"]);
        assert_eq!(listed.first_failure(["LANG", "LC_ALL"]), None);
        let why = listed
            .first_failure(["LANG", "FOO", "BAR"])
            .expect("refused");
        assert!(why.contains("\"FOO\""), "{why}");
        assert!(set(&[]).first_failure(["A"]).is_some());
        assert_eq!(set(&[]).first_failure([]), None);
    }
}
