"""The commands of `medtransfer`, a file for those that belong together."""
