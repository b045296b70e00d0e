"""Preparing a data set once, atomically, and serving it memory-mapped ever after: what authors of data sets use.

    def stripes(root: Path, *, n: int = 100) -> Splits:
        def build(draft: Draft) -> About:
            for split in ("train", "test"):
                draft.write(split, images=..., labels=...)
            return About(class_names=("across", "down"), licence="CC0-1.0", citation="...")

        return prepare(root, "stripes", build, options={"n": n})

A prepared folder is `root/NAME`, or `root/NAME-<hash of the options>`. It appears by one rename when it is complete.
"""

from benchkit.data.archives import unpacked
from benchkit.data.decoding import (
    DECODING,
    IMAGE_SUFFIXES,
    Box,
    BoxOf,
    Decoded,
    Fit,
    decode_images,
    image_sizes,
    pixel_digests,
    treatment_notes,
)
from benchkit.data.draft import About, Draft
from benchkit.data.importing import SPLIT_SYNONYMS, ClassFolders, find_class_folders, listing_digest
from benchkit.data.prepared import (
    Manifest,
    NotPrepared,
    Progress,
    SplitManifest,
    data_root,
    find_prepared,
    fingerprint_of,
    listening,
    prepare,
    prepared_folder,
    prepared_folders,
    prepared_manifest,
    progress_lines,
    replacing,
    report_progress,
    verify,
)
from benchkit.errors import first_of as listed

__all__ = [
    "DECODING",
    "IMAGE_SUFFIXES",
    "SPLIT_SYNONYMS",
    "About",
    "Box",
    "BoxOf",
    "ClassFolders",
    "Decoded",
    "Draft",
    "Fit",
    "Manifest",
    "NotPrepared",
    "Progress",
    "SplitManifest",
    "data_root",
    "decode_images",
    "find_class_folders",
    "find_prepared",
    "fingerprint_of",
    "image_sizes",
    "listed",
    "listening",
    "listing_digest",
    "pixel_digests",
    "prepare",
    "prepared_folder",
    "prepared_folders",
    "prepared_manifest",
    "progress_lines",
    "replacing",
    "report_progress",
    "treatment_notes",
    "unpacked",
    "verify",
]
