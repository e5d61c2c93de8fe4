"""Look at a folder of images and masks, and write the option file that describes it.

    recyclelora init-data photos/
    recyclelora init-data photos/ --name yard --config-dir my_conf
    recyclelora init-data photos/ --name yard --names ignore,sky,tree      # of the classes, in their order
    recyclelora init-data drives/ --cityscapes-ids         # masks that hold Cityscapes' label ids, and some more

It recognises which files are images and masks, splits and drives, ids, colours, Cityscapes' names and legends
(classes.txt, label_colors.txt, labelmap.txt, class_dict.csv), and writes <config-dir>/data/<name>.yaml for you to
check, a picture beside it, and nothing else. Files that are there are never overwritten, but --names replaces those
that nobody has changed: one name a class; `ignore` leaves it out, and classes of the same name become one.
"""

from __future__ import annotations

from pathlib import Path

from recyclelora.commands.clear_line import one_clear_line
from recyclelora.commands.help import folder_parser


def main() -> None:
    """``recyclelora init-data <folder>``."""
    parser = folder_parser("init-data", __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", help="of the data (default: the folder's)")
    parser.add_argument("--config-dir", type=Path, default=Path("my_conf"), help="of your option files (%(default)s)")
    parser.add_argument("--cityscapes-ids", action="store_true", help="masks hold Cityscapes' label ids")
    parser.add_argument("--names", help="of the classes in the order in which they were recognised: sky,tree,...")
    given = parser.parse_args()
    with one_clear_line("init-data"):
        from recyclelora.data.recognition.describe import describe_folder

        names = None if given.names is None else [name.strip() for name in given.names.split(",")]
        describe_folder(given.folder.expanduser(), given.name, given.config_dir, print, given.cityscapes_ids, names)
