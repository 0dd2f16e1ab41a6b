"""Downloads public datasets at pinned versions, and checks each file against its checksum.

Complete files are not downloaded again, and an interrupted download resumes: after a kill or a network
failure, run it again.
"""

import hashlib
import zipfile
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from components.data.sources import covid_chestxray, kermany
from core.errors import UserError
from core.files import sha256_of, write_aside
from core.progress import Progress, logger

# Of the covid-chestxray-dataset: the final state, with 950 rows.
COVID_COMMIT = "6a4242344473ccb5ed0d2148d8c7bfb1691e4ed8"
GITHUB, GITHUB_FILES = "https://api.github.com", "https://raw.githubusercontent.com"
_REPOSITORY = "ieee8023/covid-chestxray-dataset"
_WANTED = ("annotations/", "images/", "metadata.csv")

MENDELEY = "https://data.mendeley.com"
_DATASET, _VERSION, _ARCHIVE = "rscbjbr9sj", 2, "ChestXRay2017.zip"

_AT_ONCE = 8
_PASSING = (408, 429, 500, 502, 503, 504)


class _Again(Exception):
    """A failure that may not occur at the next attempt."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file as its publisher describes it.

    Attributes:
      path: its path below the dataset's directory.
      url: its address.
      size: in bytes.
      digest: `sha256:`, or `git:` for a file in a git repository, and hexadecimal digits.
    """

    path: str
    url: str
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A dataset in a repository on GitHub.

    Attributes:
      name: of the source.
      path: `owner/name` of the repository.
      commit: 40 hexadecimal digits; the files' checksums follow from it.
      wanted: how the paths of the files to download begin.
    """

    name: str
    path: str
    commit: str
    wanted: tuple[str, ...]

    @property
    def where_to_get_it(self) -> str:
        """Its page."""
        return f"https://github.com/{self.path}"


def fetch_covid(
    directory: Path, commit: str = COVID_COMMIT, github: str = GITHUB, files: str = GITHUB_FILES
) -> Path:
    """Downloads the covid-chestxray-dataset as of a commit: metadata, images and annotations.

    Args:
      directory: gets `covid-chestxray-dataset/`.
      commit: of its repository.
      github, files: see `fetch_repository`.

    Returns:
      the dataset's directory.

    Raises:
      UserError: it cannot be downloaded completely.
    """
    repository = Repository(
        name=covid_chestxray.NAME, path=_REPOSITORY, commit=commit, wanted=_WANTED
    )
    target = directory / covid_chestxray.DIRECTORY
    fetch_repository(repository, target, github, files)
    return target


def fetch_repository(
    repository: Repository, target: Path, github: str = GITHUB, files: str = GITHUB_FILES
) -> None:
    """Downloads what is wanted of a repository, as of its commit.

    Args:
      repository: see `Repository`.
      target: the directory that gets the files.
      github, files: servers of the repository's tree and of its files.

    Raises:
      UserError: it cannot be downloaded completely.
    """
    with _client() as client:
        url = f"{github}/repos/{repository.path}/git/trees/{repository.commit}?recursive=1"
        tree = _asked(client, url, repository.name, repository.where_to_get_it)
        if tree.get("truncated"):
            raise UserError(
                f"{repository.name}: the server lists only a part of the repository's files. Get it "
                f"yourself: {repository.where_to_get_it}"
            )
        published = [
            Published(
                path=entry["path"],
                url=f"{files}/{repository.path}/{repository.commit}/{quote(entry['path'])}",
                size=entry["size"],
                digest=f"git:{entry['sha']}",
            )
            for entry in tree["tree"]
            if entry["type"] == "blob" and entry["path"].startswith(repository.wanted)
        ]
        _fetch(client, published, target, repository.name, repository.where_to_get_it)


def fetch_kermany(directory: Path, mendeley: str = MENDELEY) -> Path:
    """Downloads Kermany's chest X-rays, version 2, and unpacks them.

    Args:
      directory: gets `chest_xray/`. An archive that was put there by hand is used if its checksum matches.
      mendeley: the publisher's server.

    Returns:
      the dataset's directory.

    Raises:
      UserError: it cannot be downloaded completely.
    """
    target, archive = directory / kermany.DIRECTORY, directory / _ARCHIVE
    if target.is_dir():
        logger.info("%s exists already", target)
        return target
    with _client() as client:
        listed = _asked(
            client,
            f"{mendeley}/public-api/datasets/{_DATASET}/files?folder_id=root&version={_VERSION}",
            kermany.NAME,
            kermany.WHERE_TO_GET_IT,
        )
        details = next(file["content_details"] for file in listed if file["filename"] == _ARCHIVE)
        published = Published(
            path=_ARCHIVE,
            url=details["download_url"],
            size=details["size"],
            digest=f"sha256:{details['sha256_hash']}",
        )
        _fetch(client, [published], directory, kermany.NAME, kermany.WHERE_TO_GET_IT)
    logger.info("unpacking %s", archive)
    with write_aside(target) as aside, zipfile.ZipFile(archive) as packed:
        # The archive also holds metadata of macOS.
        members = [
            member
            for member in packed.namelist()
            if member.startswith(f"{kermany.DIRECTORY}/") and not member.endswith("/.DS_Store")
        ]
        with Progress("files unpacked", len(members)) as progress:
            for member in members:
                packed.extract(member, aside)
                progress.advance()
        (aside / kermany.DIRECTORY).rename(aside.with_suffix(".unpacked"))
        aside.rmdir()
        aside.with_suffix(".unpacked").rename(aside)
    archive.unlink()
    return target


def _client() -> httpx.Client:
    # Uncompressed, because an interrupted compressed answer cannot be resumed.
    return httpx.Client(follow_redirects=True, timeout=60, headers={"Accept-Encoding": "identity"})


def _asked(client: httpx.Client, url: str, name: str, where: str) -> Any:
    try:
        return _answer(client, url).json()
    except (httpx.HTTPError, ValueError, _Again) as error:
        raise UserError(_by_hand(url, error, name, where)) from error


def _fetch(
    client: httpx.Client, published: Iterable[Published], directory: Path, name: str, where: str
) -> None:
    published = list(published)
    megabytes = sum(file.size for file in published) / 1e6
    logger.info("%s: %d files, %.0f MB", name, len(published), megabytes)
    there = sum(_have(directory / file.path) for file in published) / 1e6
    done: list[Future[None]] = []

    def files() -> str:
        return f"{sum(future.done() for future in done):,} of {len(published):,} files"

    progress = Progress("MB fetched", megabytes, done=there, figures=files)
    with progress, ThreadPoolExecutor(_AT_ONCE) as pool:
        for file in published:
            target = directory / file.path
            done.append(pool.submit(download, client, file, target, progress))
        try:
            for file, future in zip(published, done, strict=True):
                try:
                    future.result()
                except (httpx.HTTPError, _Again) as error:
                    raise UserError(_by_hand(file.url, error, name, where)) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _by_hand(url: str, error: Exception, name: str, where: str) -> str:
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"{name}: {url} cannot be downloaded: {said}. Run the command again: it resumes. If the "
        f"publisher asks for a click, or there is no network, download it in a browser from "
        f"{where} and put it there by hand."
    )


_patiently = retry(
    retry=retry_if_exception_type((httpx.TransportError, _Again)),
    wait=wait_random_exponential(max=30),
    stop=stop_after_attempt(6),
    reraise=True,
)


@_patiently
def _answer(client: httpx.Client, url: str) -> httpx.Response:
    response = client.get(url)
    _require(response)
    return response


@_patiently
def download(client: httpx.Client, published: Published, target: Path, progress: Progress) -> None:
    """Downloads a file, unless it exists; resumes an interrupted download.

    Args:
      client: for the request.
      published: the file.
      target: where it is written, completely or not at all.
      progress: counts megabytes.

    Raises:
      httpx.HTTPError, _Again: it cannot be downloaded, or its checksum does not match.
    """
    if target.is_file() and _digest(target, published.digest) == published.digest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target)
    have = part.stat().st_size if part.exists() else 0
    if have < published.size:
        headers = {"Range": f"bytes={have}-"} if have else {}
        with client.stream("GET", published.url, headers=headers) as response:
            _require(response)
            goes_on = response.status_code == httpx.codes.PARTIAL_CONTENT
            if not goes_on:
                progress.advance(-have / 1e6)
            with part.open("ab" if goes_on else "wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    progress.advance(len(chunk) / 1e6)
    if _digest(part, published.digest) != published.digest:
        progress.advance(-part.stat().st_size / 1e6)
        part.unlink()
        raise _Again("its checksum does not match the published one")
    part.replace(target)


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _have(target: Path) -> int:
    """Returns the size in bytes of a file and its partial download."""
    return sum(file.stat().st_size for file in (target, _part(target)) if file.is_file())


def _require(response: httpx.Response) -> None:
    if response.status_code in _PASSING:
        raise _Again(f"the server answers {response.status_code}")
    response.raise_for_status()


def _digest(file: Path, like: str) -> str:
    """Returns a file's digest, of the same kind as another digest."""
    if like.startswith("sha256:"):
        return f"sha256:{sha256_of(file)}"
    header = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as content:
        return f"git:{hashlib.file_digest(content, header.copy).hexdigest()}"
