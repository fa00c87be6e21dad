"Files with signed records (Content Credentials), made on the spot with certificates of no value to anybody."
import datetime, io, json
import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

WORDS = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def certificate(name, by=None, days=30.):
    "A certificate and its key; of an authority where nobody vouches for it."
    now, day, key = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(1), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, sign = (by[0].subject, by[1]) if by else (subject, key)
    made = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - day).not_valid_after(now + days * day).add_extension(x509.BasicConstraints(by is None, None), True)
            .add_extension(x509.KeyUsage(by is not None, False, False, False, False, by is None, by is None, False, False), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(sign.public_key()), False))
    if by: made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    return made.sign(sign, hashes.SHA256()), key


def pem(made): return made.public_bytes(serialization.Encoding.PEM)


def key_pem(key): return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def says(word, agent="Imager <b>3"): return dict(claim_generator_info=[dict(name="Studio", version="2")], assertions=[dict(label="c2pa.actions.v2", data=dict(actions=[dict(action="c2pa.created", digitalSourceType=WORDS + word, softwareAgent=dict(name=agent))]))])


def signed(data, mime, record, signer, address=None):
    "A file with a record in it, or with nothing but the address of one."
    def sign(text): return b"".join(o.to_bytes(32, "big") for o in decode_dss_signature(signer[1].sign(text, ec.ECDSA(hashes.SHA256()))))
    settings = dict(verify=dict(verify_after_sign=False, remote_manifest_fetch=False), builder=dict(thumbnail=dict(enabled=False)))
    builder, out = c2pa.Builder(json.dumps(record), c2pa.Context(c2pa.Settings.from_dict(settings))), io.BytesIO()
    if address:
        builder.set_no_embed()
        builder.set_remote_url(address)
    builder.sign(c2pa.Signer.from_callback(sign, c2pa.C2paSigningAlg.ES256, pem(signer[0]).decode(), None), mime, io.BytesIO(data), out)
    return out.getvalue()
