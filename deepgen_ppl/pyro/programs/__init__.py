"""Ready programs: native functions of the language, built from plain data."""
