"""Reads TLS-RPT reports as a receiver would, with nothing but the standard library.

Usage: report.py mail FILE                          the JSON of a mailed report
       report.py https FILE.json                    the JSON of a posted one, as lib/sink.py kept it
       report.py results FILE                       per policy: type, successes, failures, TYPE=COUNT...
       report.py check-mail FILE DOMAIN SUBMITTER   the mail's form (RFC 8460 sections 3, 5.1 and 5.3)
       report.py check FILE DOMAIN DAY ORGANIZATION POLICYLINE
"""
import email
import email.policy
import gzip
import json
import pathlib
import sys


def need(what, good, got=""):
    if not good:
        sys.exit(f"{what}: {got}")


def report_part(message):
    return next(p for p in message.walk() if p.get_content_type() in ("application/tlsrpt+gzip", "application/tlsrpt+json"))


def text_of(kind, data):
    return gzip.decompress(data) if kind.endswith("+gzip") else data


def mail(path):
    message = email.message_from_bytes(pathlib.Path(path).read_bytes(), policy=email.policy.default)
    part = report_part(message)
    sys.stdout.buffer.write(text_of(part.get_content_type(), part.get_payload(decode=True)))


def https(path):
    about = json.loads(pathlib.Path(path).read_text())
    kind = about["headers"].get("content-type", "")
    need("content type", kind in ("application/tlsrpt+gzip", "application/tlsrpt+json"), kind)
    need("path", about["path"] == "/tlsrpt", about["path"])
    sys.stdout.buffer.write(text_of(kind, pathlib.Path(path).with_suffix(".body").read_bytes()))


def results(path):
    lines = []
    for policy in json.loads(pathlib.Path(path).read_text())["policies"]:
        summary = policy["summary"]
        counts = {}
        for detail in policy.get("failure-details", []):
            counts[detail["result-type"]] = counts.get(detail["result-type"], 0) + detail["failed-session-count"]
        words = [policy["policy"]["policy-type"], summary["total-successful-session-count"], summary["total-failure-session-count"]]
        lines.append(" ".join(map(str, words + [f"{k}={v}" for k, v in sorted(counts.items())])))
    print("; ".join(sorted(lines)))


def check_mail(path, domain, submitter):
    message = email.message_from_bytes(pathlib.Path(path).read_bytes(), policy=email.policy.default)
    need("Content-Type", message.get_content_type() == "multipart/report", message["Content-Type"])
    need("report-type", message.get_param("report-type") == "tlsrpt", message["Content-Type"])
    need("TLS-Report-Domain", message["TLS-Report-Domain"] == domain, message["TLS-Report-Domain"])
    need("TLS-Report-Submitter", message["TLS-Report-Submitter"] == submitter, message["TLS-Report-Submitter"])
    need("From", submitter in message["From"], message["From"])
    subject = " ".join(message["Subject"].split())
    for word in ("Report Domain: " + domain, "Submitter: " + submitter, "Report-ID: <"):
        need("Subject", word in subject, subject)
    need("Message-ID and Date", message["Message-ID"] and message["Date"], message.keys())
    need("TLS-Required: No (RFC 8689 section 5)", message["TLS-Required"] in (None, "No"), message["TLS-Required"])
    first = next(message.iter_parts())
    need("first part", first.get_content_type() == "text/plain", first.get_content_type())
    part = report_part(message)
    name = part.get_filename() or ""
    need("filename", name.startswith(f"{submitter}!{domain}!") and name.endswith((".json.gz", ".json")), name)
    data = json.loads(text_of(part.get_content_type(), part.get_payload(decode=True)))
    need("Report-ID of the subject is the report's", data["report-id"].strip("<>") in subject, subject)


def check(path, domain, day, organization, line):
    data = json.loads(pathlib.Path(path).read_text())
    need("organization-name", data["organization-name"] == organization, data)
    need("contact-info", "@" in data["contact-info"], data)
    span = data["date-range"]
    need("date-range", span["start-datetime"] == f"{day}T00:00:00Z" and span["end-datetime"].startswith(day), span)
    (policy,) = data["policies"]
    need("policy-domain", policy["policy"]["policy-domain"] == domain, policy)
    need("policy-string", line in policy["policy"]["policy-string"], policy)
    need("mx-host", isinstance(policy["policy"]["mx-host"], list), policy)
    for detail in policy["failure-details"]:
        need("receiving host", detail["receiving-mx-hostname"].endswith(".example"), detail)
        need("its address", detail["receiving-ip"].startswith("127."), detail)


{"mail": mail, "https": https, "results": results, "check-mail": check_mail, "check": check}[sys.argv[1]](*sys.argv[2:])
