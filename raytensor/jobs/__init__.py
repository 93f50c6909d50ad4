"""The long-running jobs, a folder or a file each, and the session that all of them share."""
