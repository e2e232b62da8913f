"""What a person looks at: pictures of cases, comparisons of runs, report pages."""
