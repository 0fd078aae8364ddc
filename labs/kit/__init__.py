"""What every lesson uses: machine, servers, exercise checks, progress, records, cost."""
