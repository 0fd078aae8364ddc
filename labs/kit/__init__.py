"""What all lessons share: progress, checks, pictures, the course's table of contents; and short errors in cells."""

from labs.kit.cell_errors import install

install()
