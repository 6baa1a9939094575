# SPDX-License-Identifier: GPL-2.0-or-later
"""What the scripts of the fork share: the overlay, the series, the git tree.

The repository holds files that upstream does not have (the overlay) and hook
patches for files that it has (the series). Both are turned into commits of
the git repository BUILD/src, which has the base as its first commit:

    base (tag)  <-  overlay (tag)  <-  one commit per patch  <-  HEAD

construct() makes these commits without looking at the working tree, so that
the same input always gives the same commit ids and only files that really
changed are touched in the working tree. export_series() goes the other way.

Refs in BUILD/src:
    refs/tags/base            the pristine base
    refs/tags/overlay         base + overlay files
    refs/fork/materialised    the HEAD that materialise left behind
    refs/fork/patches         tree of the patches that it was made from
    refs/fork/previous        the developer's HEAD before the last refresh
"""

import fcntl
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PATCHES = TOP / "patches"

# Folders of the repository that are laid over the base at the same path.
OVERLAY_DIRS = ("backends", "docs", "hw", "include", "memory-manager",
                "migration", "qapi", "softmmu", "stubs", "tests")
# What users run is laid, too, beside QEMU's own scripts.
OVERLAY_PREFIX = "scripts/qemu-"
# Folders that otherwise belong to the repository alone.
OWN_DIRS = (".ci", "patches", "scripts")
# The base has a meson.build of its own, so that of the fork gets a folder.
MOVED = {"meson.build": "managed-memory/meson.build"}

# Nothing of the user's or the system's git configuration may leak in.
GIT_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_COMMITTER_NAME": "fork",
    "GIT_COMMITTER_EMAIL": "fork@localhost",
    "GIT_AUTHOR_NAME": "fork",
    "GIT_AUTHOR_EMAIL": "fork@localhost",
    "GIT_COMMITTER_DATE": "@0 +0000",
    "GIT_AUTHOR_DATE": "@0 +0000",
    "LC_ALL": "C.UTF-8",
}
GIT = ["git", "-c", "safe.directory=*", "-c", "core.autocrlf=false",
       "-c", "core.excludesFile=/dev/null", "-c", "core.quotePath=false",
       "-c", "advice.detachedHead=false"]


class ForkError(Exception):
    """Something that the user must put right; the text says how."""


def run_main(main):
    """Run main() and turn a ForkError into a message and exit status 1."""
    try:
        sys.exit(main())
    except ForkError as err:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {err}")


class Git:
    """Runs git in one repository, apart from any user configuration."""

    def __init__(self, path, env=None):
        self.path = Path(path)
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith("GIT_")}
        self.env.update(GIT_ENV)
        self.env.update(env or {})

    def with_env(self, **env):
        """The same repository with more environment variables."""
        return Git(self.path, dict(self.env, **env))

    def try_run(self, *args, data=None):
        """Run git and return the finished process, failed or not."""
        return subprocess.run(GIT + list(args), cwd=self.path, env=self.env,
                              input=data, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)

    def run(self, *args, data=None):
        """Run git and return its output as bytes; failure is an error."""
        done = self.try_run(*args, data=data)
        if done.returncode:
            raise ForkError(f"git {' '.join(args)} failed in {self.path}:\n"
                            + done.stderr.decode(errors="replace"))
        return done.stdout

    def text(self, *args, data=None):
        """Run git and return its output as text without the last newline."""
        return self.run(*args, data=data).decode().rstrip("\n")

    def paths(self, *args):
        """Run git with -z output and return the set of paths it prints."""
        return set(self.run(*args).decode().split("\0")) - {""}

    def ref(self, name):
        """The object that a ref names, or None."""
        done = self.try_run("rev-parse", "-q", "--verify", name)
        return done.stdout.decode().strip() or None


def open_source(build):
    """The git repository BUILD/src, which must have its base."""
    git = Git(Path(build) / "src")
    if not (git.path / ".git").exists() or not git.ref("refs/tags/base"):
        raise ForkError(f"{git.path} has no base yet; run ./configure first")
    return git


def lock_build(build):
    """Keep two scripts from changing one build folder at the same time."""
    lock = open(Path(build) / ".lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def base_paths(git):
    """All paths of the pristine base."""
    return git.paths("ls-tree", "-r", "-z", "--name-only", "base")


# The overlay


def repository_files():
    """Tracked and not ignored files of the repository, relative to TOP."""
    listed = Git(TOP).try_run("ls-files", "-z", "-c", "-o",
                              "--exclude-standard")
    if listed.returncode == 0:
        names = set(listed.stdout.decode().split("\0")) - {""}
    else:
        # A release tarball: everything that it holds is the project.
        names = {str(path.relative_to(TOP)) for path in TOP.rglob("*")
                 if not path.is_dir() and "__pycache__" not in path.parts}
    return sorted(name for name in names if os.path.lexists(TOP / name))


def is_overlay(path):
    """Whether a path is laid over the base as it is."""
    return (path.split("/", 1)[0] in OVERLAY_DIRS
            or path.startswith(OVERLAY_PREFIX))


def tree_path(name):
    """Where a file of the repository lies in the tree, or None."""
    if name in MOVED:
        return MOVED[name]
    return name if is_overlay(name) else None


def repository_path(path):
    """Where a new file of the tree belongs in the repository, or None."""
    for name, moved in MOVED.items():
        if path == moved:
            return name
    return path if is_overlay(path) else None


def overlay_files():
    """The overlay as {path in the tree: path in the repository}."""
    overlay = {}
    for name in repository_files():
        folder = name.split("/", 1)[0]
        if tree_path(name):
            overlay[tree_path(name)] = name
        elif folder != name and folder not in OWN_DIRS:
            raise ForkError(
                f"{name}: the folder {folder} is not known; if it is to be "
                "laid over the base, add it to OVERLAY_DIRS in "
                "scripts/forklib.py")
    return overlay


def refuse_collisions(overlay, base):
    """The overlay adds files; it never replaces or hides one of the base."""
    base_dirs = {str(parent) for path in base for parent in Path(path).parents}
    for path, name in overlay.items():
        parents = {str(parent) for parent in Path(path).parents}
        if path in base or path in base_dirs or parents & base:
            raise ForkError(
                f"{name} exists in the base, too. A file of the overlay must "
                f"be new: give it another name, or change the base's file "
                f"with a patch (patches/README.md).")


def add_overlay(git, overlay):
    """Put the overlay's files into git's index."""
    files = {path: TOP / name for path, name in overlay.items()}
    plain = [path for path in files if not files[path].is_symlink()]
    blobs = git.text("hash-object", "-w", "--no-filters", "--stdin-paths",
                     data="".join(f"{files[path]}\n"
                                  for path in plain).encode()).split()
    info = []
    for path, blob in zip(plain, blobs):
        mode = "100755" if os.access(files[path], os.X_OK) else "100644"
        info.append(f"{mode} {blob}\t{path}")
    for path in set(files) - set(plain):
        blob = git.text("hash-object", "-w", "--stdin",
                        data=os.readlink(files[path]).encode())
        info.append(f"120000 {blob}\t{path}")
    git.run("update-index", "--add", "--index-info",
            data="".join(line + "\n" for line in sorted(info)).encode())


# The series


def series():
    """Names of the patches in their order."""
    lines = (PATCHES / "series").read_text().splitlines()
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    for name in names:
        if not (PATCHES / name).is_file():
            raise ForkError(f"patches/series names {name}, but there is no "
                            f"patches/{name}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ForkError("patches/series names twice: " + ", ".join(twice))
    return names


def patches_tree(git):
    """A git tree object of the series as it is in the repository."""
    entries = []
    for path in [PATCHES / "series"] + [PATCHES / name for name in series()]:
        blob = git.text("hash-object", "-w", "--no-filters", str(path))
        entries.append(f"100644 blob {blob}\t{path.name}\n")
    return git.text("mktree", data="".join(entries).encode())


def read_mail(git, data, name):
    """Split a patch with mail headers into (author env, message, diff)."""
    with tempfile.TemporaryDirectory() as tmp:
        info = git.text("mailinfo", "-k", "--encoding=UTF-8",
                        f"{tmp}/message", f"{tmp}/diff", data=data)
        body = Path(tmp, "message").read_text()
        diff = Path(tmp, "diff").read_bytes()
    header = dict(line.split(": ", 1) for line in info.splitlines()
                  if ": " in line)
    for field in ("Author", "Email", "Subject", "Date"):
        if field not in header:
            raise ForkError(f"patches/{name} lacks a mail header ({field}); "
                            "see patches/README.md for the form of a patch")
    env = {"GIT_AUTHOR_NAME": header["Author"],
           "GIT_AUTHOR_EMAIL": header["Email"],
           "GIT_AUTHOR_DATE": header["Date"]}
    return env, f"{header['Subject']}\n\n{body}".strip() + "\n", diff


def apply_patch(git, parent, name):
    """Commit one patch on top of parent, in the index only, without fuzz."""
    env, message, diff = read_mail(git, (PATCHES / name).read_bytes(), name)
    done = git.try_run("apply", "--cached", "--whitespace=nowarn", "-",
                       data=diff)
    if done.returncode:
        raise ForkError(f"patches/{name} does not apply to this base:\n"
                        + done.stderr.decode(errors="replace")
                        + "Adapt the patch to the base, or give the base that "
                          "it was made for (scripts/base.conf).")
    # The name travels in the commit, so that it survives rebases.
    message = git.text("interpret-trailers", "--if-exists", "replace",
                       "--trailer", f"Patch-name: {name}",
                       data=message.encode())
    tree = git.text("write-tree")
    return git.with_env(**env).text("commit-tree", tree, "-p", parent,
                                    data=message.encode() + b"\n")


def construct(git):
    """Make the commits of overlay and series; return (overlay, head)."""
    overlay = overlay_files()
    refuse_collisions(overlay, base_paths(git))
    with tempfile.TemporaryDirectory(dir=git.path / ".git") as tmp:
        git = git.with_env(GIT_INDEX_FILE=f"{tmp}/index")
        git.run("read-tree", "base")
        add_overlay(git, overlay)
        base = git.ref("refs/tags/base")
        commit = git.text("commit-tree", git.text("write-tree"), "-p", base,
                          "-m", "OVERLAY: the files that the fork adds")
        head = commit
        for name in series():
            head = apply_patch(git, head, name)
    return commit, head


def export_commit(git, commit):
    """One commit of the series as (patch name, patch file content)."""
    message = git.run("log", "-1", "--format=%B", commit).decode()
    names = re.findall(r"^Patch-name: (\S+)$", message, re.M)
    message = re.sub(r"^Patch-name: .*\n", "", message, flags=re.M)
    if names:
        name = names[-1]
    else:
        name = git.text("log", "-1", "--format=%f", commit) + ".patch"
    env = dict(zip(("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_DATE"),
                   git.text("log", "-1", "--format=%an%n%ae%n%ad",
                            "--date=raw", commit).split("\n")))
    env["GIT_AUTHOR_DATE"] = "@" + env["GIT_AUTHOR_DATE"]
    plain = git.with_env(**env).text(
        "commit-tree", f"{commit}^{{tree}}", "-p", f"{commit}^",
        data=message.strip().encode() + b"\n")
    data = git.run("format-patch", "--stdout", "-1", "--zero-commit",
                   "--no-signature", "--full-index", "--no-stat",
                   "--keep-subject", "-N", "--no-renames", plain)
    return name, data.rstrip(b"\n") + b"\n"


def normalised(patch):
    """A patch without what moves when only the base's revision moves."""
    patch = re.sub(rb"^index [0-9a-f]{40}\.\.[0-9a-f]{40}", b"index", patch,
                   flags=re.M)
    return re.sub(rb"^@@ -[0-9]+(,[0-9]+)? \+[0-9]+(,[0-9]+)? @@.*$",
                  rb"@@ -\1 +\2 @@", patch, flags=re.M)


def series_commits(git, start, end):
    """Split start..end into (hook commits, overlay paths changed)."""
    base = base_paths(git)
    hooks, added = [], set()
    for commit in git.text("rev-list", "--reverse",
                           f"{start}..{end}").split():
        title = git.text("log", "-1", "--format=%h (%s)", commit)
        if len(git.text("log", "-1", "--format=%P", commit).split()) != 1:
            raise ForkError(f"commit {title} is a merge; rebase instead")
        if re.search(r"\((fixup|squash|amend)! ", title):
            raise ForkError(f"commit {title} is not squashed; run git rebase "
                            "-i --autosquash overlay first")
        paths = git.paths("diff-tree", "-r", "-z", "--name-only",
                          "--no-commit-id", "--no-renames", commit)
        if paths & base and paths - base:
            raise ForkError(
                f"commit {title} mixes files of the base "
                f"({', '.join(sorted(paths & base)[:3])}) with files of the "
                f"fork ({', '.join(sorted(paths - base)[:3])}); split it: a "
                "commit is a patch or part of the overlay, never both")
        if paths & base:
            hooks.append(commit)
        added |= paths - base
    return hooks, added


def export_series(git, hooks):
    """The hook commits as an ordered {patch name: content}."""
    patches = {}
    for commit in hooks:
        name, data = export_commit(git, commit)
        if name in patches:
            raise ForkError(f"two commits claim to be {name}; squash them, or "
                            "remove the Patch-name line of one message")
        patches[name] = data
    return patches


# The working tree


def local_edits(git):
    """Paths that differ in the working tree from HEAD, untracked included."""
    status = git.run("status", "--porcelain", "-z", "-uall", "--no-renames")
    return {entry[3:] for entry in status.decode().split("\0") if entry}


def is_clean(git):
    """Whether BUILD/src is as materialise left it."""
    return (git.ref("HEAD") == git.ref("refs/fork/materialised")
            and not local_edits(git))


def record_patches(git):
    """Note which patches the materialised tree was made from."""
    git.run("update-ref", "refs/fork/patches", patches_tree(git))


def record(git, overlay, head):
    """Make the working tree, the tags and the refs those of a new HEAD."""
    if not git.ref("HEAD^{commit}") == head:
        git.run("reset", "-q", "--hard", head)
    git.run("update-ref", "refs/tags/overlay", overlay)
    git.run("update-ref", "refs/fork/materialised", head)
    record_patches(git)
