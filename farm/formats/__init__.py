"""What panicdump leaves behind, as bytes: decoding, checking and, for tests, encoding.

The contract is Documentation/admin-guide/panicdump.rst of the series, whose sections each module
names.  Decoders are pure: bytes in, frozen values out.  Input from a board is hostile: work and
memory are bounded by its length, names come out escaped, and what is damaged is listed, not raised.
FormatError, with an offset, is for input that is not the format at all.

record     one record, ELF or raw form (sections 1 to 5)
contents   the table inside the contents record (section 6)
ramoops    zones of a ramoops region, frames of the panicdump zone (section 7)
ecc        the Reed-Solomon code that ramoops puts over a zone
table      the registry as debugfs shows it (section 8)
pattern    what the sample devices hold under a nonce (section 11)
encode     records, tables and zones made from values, for tests and golden files
elf        the part of ELF64 in use; layout: structures declared as tables of offsets
"""
