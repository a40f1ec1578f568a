"""What tests of several kinds share. Import it as `from support.streams import check_stream`."""
